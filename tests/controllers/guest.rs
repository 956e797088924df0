//! A guest: a Linux kernel in QEMU with nothing in it but busybox, the programs under test and the libraries that they
//! need, at the very paths where they lie here. It runs one test of the calling program again, says what that said,
//! and is gone. Nothing of this host is changed or reachable from it.

use super::common::{GUEST, which};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where `tests/run` puts the kernel.
const KERNEL: &str = "/var/cache/keepd-tests/vmlinuz";

/// Whether this is the guest.
pub(crate) fn inside() -> bool {
    std::env::var_os(GUEST).is_some()
}

/// Runs the test of this name in a guest, and gives what its console said; or why there can be no guest here.
pub(crate) fn run(test: &str) -> Result<String, String> {
    for program in ["qemu-system-x86_64", "busybox", "cpio", "strip", "ldd"] {
        which(program).ok_or_else(|| format!("{program} is not installed"))?;
    }
    if !cfg!(target_arch = "x86_64") || !Path::new(KERNEL).exists() {
        return Err(format!("there is no kernel for it, {KERNEL}"));
    }
    let dir = tempfile::Builder::new().prefix("keepd-guest-").tempdir().unwrap();
    let image = dir.path().join("initrd");
    pack(&furnish(dir.path(), test), &image);
    // An emulated processor may hang while the kernel comes up.
    let first = boot(dir.path(), &image);
    Ok(if first.contains("running 1 test") { first } else { boot(dir.path(), &image) })
}

/// Boots the image, and waits until the guest is gone or its time is up; what its console said.
fn boot(dir: &Path, image: &Path) -> String {
    let console = dir.join("console");
    // Some CPUs of QEMU's emulation hang or fault in newer kernels with cmpxchg16b.
    let cpu = "max,-cx16,la57=off";
    let done = Command::new("timeout")
        .args([
            "--kill-after=5",
            "280",
            "qemu-system-x86_64",
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
        ])
        .args(["-cpu", cpu, "-smp", "2", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none"])
        .args([
            "-no-reboot",
            "-kernel",
            KERNEL,
            "-append",
            "console=ttyS0 quiet mitigations=off panic=-1",
            "-initrd",
        ])
        .arg(image)
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = fs::read(&console).unwrap_or_default();
    format!("{}{}", String::from_utf8_lossy(&said).replace('\r', ""), String::from_utf8_lossy(&done.stderr))
}

/// The guest's files, in a folder.
fn furnish(dir: &Path, test: &str) -> PathBuf {
    let root = dir.join("root");
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "var"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let own = std::env::current_exe().unwrap();
    let programs = [Path::new(env!("CARGO_BIN_EXE_keepd")), Path::new(env!("CARGO_BIN_EXE_keepctl")), &own];
    let mut libraries = BTreeSet::new();
    for program in programs {
        let at = inside_of(&root, program);
        let done = Command::new("strip").arg("-o").arg(&at).arg(program).status().unwrap();
        assert!(done.success(), "cannot strip {}", program.display());
        let linked = Command::new("ldd").arg(program).output().unwrap();
        let linked = String::from_utf8(linked.stdout).unwrap();
        libraries.extend(linked.split_ascii_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from));
    }
    for library in libraries {
        fs::copy(&library, inside_of(&root, &library)).unwrap();
    }
    fs::copy(which("busybox").unwrap(), root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    let script = format!(
        "#!/bin/sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin:/usr/bin\n\
         mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev\n\
         mount -t cgroup2 cgroup /sys/fs/cgroup && chmod 1777 /tmp && ip link set lo up\n\
         {GUEST}=1 {} --exact {test} --nocapture\n\
         echo GUEST STATUS $?\n\
         poweroff -f\n",
        own.display()
    );
    fs::write(root.join("init"), script).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    root
}

/// The same path in the guest, whose folder is made.
fn inside_of(root: &Path, path: &Path) -> PathBuf {
    let at = root.join(path.strip_prefix("/").unwrap());
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    at
}

fn pack(root: &Path, image: &Path) {
    let names = Command::new("find").arg(".").current_dir(root).output().unwrap().stdout;
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(image).unwrap())
        .spawn()
        .unwrap();
    cpio.stdin.take().unwrap().write_all(&names).unwrap();
    assert!(cpio.wait().unwrap().success());
}
