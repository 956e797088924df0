//! Where a configuration is looked for and whose keepd it is for. It reads /proc, the environment and the user
//! database once; it reads no configuration.

use super::users::{Account, Databases, Users};
use crate::plan::Mode;
use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf, absolute},
};

/// Everything that [`super::load`] depends on besides the files themselves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The main file, absolute.
    pub main: PathBuf,
    /// The main file was named by the caller (`--config`): it must exist, and only it and the `conf.d`
    /// folder beside it are read.
    pub explicit: bool,
    /// System or user mode.
    pub mode: Mode,
    /// Chosen outside of the files (`--profile`, `$KEEPD_PROFILE`); wins over the files' `profile`.
    pub profile: Option<String>,
    /// What `${host}` stands for.
    pub host: String,
    /// Folders of drop-ins, the strongest first.
    pub drop_ins: Vec<PathBuf>,
    /// Default of `[daemon] runtime-dir`.
    pub runtime_dir: PathBuf,
    /// Default of `[daemon] state-dir`.
    pub state_dir: PathBuf,
    /// Default of `[daemon] log-dir`.
    pub log_dir: PathBuf,
    /// Whom this process runs as; in user mode so does every service.
    pub me: Account,
    /// Where users and groups are looked up.
    pub databases: Databases,
}

impl Options {
    /// The options of this process: system mode for root unless `user` is set, user mode for anybody else.
    /// `config` is the value of `--config`. Fails where /proc cannot be read.
    pub fn current(user: bool, config: Option<&Path>, profile: Option<String>) -> io::Result<Options> {
        let (uid, gid) = effective_ids()?;
        let databases = Databases::default();
        let found = Users::new(&databases).by_uid(uid).ok().flatten();
        let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let mut me = found.unwrap_or_else(|| Account::nameless(uid, gid));
        me.gid = gid;
        let mode = if uid == 0 && !user { Mode::System } else { Mode::User };
        let mut options = match mode {
            Mode::System => Options::system(me, databases),
            Mode::User => Options::user(me, databases, &env),
        };
        options.profile = profile.filter(|p| !p.is_empty());
        options.host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
        match config {
            Some(file) => options.with_main(file),
            None => Ok(options),
        }
    }

    /// The same options for another main file: only it and the `conf.d` folder beside it are read.
    pub fn with_main(mut self, file: &Path) -> io::Result<Options> {
        self.main = absolute(file)?;
        self.explicit = true;
        self.drop_ins = vec![self.main.with_file_name("conf.d")];
        Ok(self)
    }

    /// The options of a keepd that root started.
    pub fn system(me: Account, databases: Databases) -> Options {
        let folders = ["/etc/keepd/conf.d", "/run/keepd/conf.d", "/usr/lib/keepd/conf.d"];
        Options {
            main: "/etc/keepd/keepd.toml".into(),
            explicit: false,
            mode: Mode::System,
            profile: None,
            host: String::new(),
            drop_ins: folders.map(PathBuf::from).into(),
            runtime_dir: "/run/keepd".into(),
            state_dir: "/var/lib/keepd".into(),
            log_dir: "/var/log/keepd".into(),
            me,
            databases,
        }
    }

    /// The options of an ordinary user's keepd, under XDG's folders as `env` names them.
    pub fn user(me: Account, databases: Databases, env: &dyn Fn(&str) -> Option<OsString>) -> Options {
        // XDG: a relative path in these variables is to be ignored.
        let folder = |name: &str| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = folder("HOME").unwrap_or_else(|| me.home.clone());
        let config = folder("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("keepd");
        let state = folder("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("keepd");
        let login = PathBuf::from(format!("/run/user/{}", me.uid));
        let ours = fs::metadata(&login).is_ok_and(|m| m.is_dir() && m.uid() == me.uid);
        let runtime = match folder("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("keepd"),
            None if ours => login.join("keepd"),
            None => state.join("run"),
        };
        Options {
            main: config.join("keepd.toml"),
            mode: Mode::User,
            drop_ins: vec![config.join("conf.d")],
            runtime_dir: runtime,
            log_dir: state.join("log"),
            state_dir: state,
            // What keepd was started with is what its services get: HOME, and where they begin.
            ..Options::system(Account { home, ..me }, databases)
        }
    }
}

/// The effective user and group id, from /proc/self/status: this room makes no system calls of its own.
fn effective_ids() -> io::Result<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
    };
    match (effective("Uid:"), effective("Gid:")) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(io::Error::other("/proc/self/status does not name this process's user")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Options {
        // An id without /run/user/ID on any host.
        let me = Account { home: "/home/ann".into(), ..Account::nameless(4_000_000_000, 100) };
        Options::user(me, Databases::default(), &|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn an_ordinary_users_tree_lives_in_the_home() {
        let o = of(&[]);
        assert_eq!(o.main, Path::new("/home/ann/.config/keepd/keepd.toml"));
        assert_eq!(o.drop_ins, [PathBuf::from("/home/ann/.config/keepd/conf.d")]);
        assert_eq!(o.runtime_dir, Path::new("/home/ann/.local/state/keepd/run"));
        assert_eq!(o.state_dir, Path::new("/home/ann/.local/state/keepd"));
        assert_eq!(o.log_dir, Path::new("/home/ann/.local/state/keepd/log"));
    }

    #[test]
    fn xdg_variables_are_honoured_and_relative_ones_ignored() {
        let o = of(&[("XDG_CONFIG_HOME", "/c"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_STATE_HOME", "state")]);
        assert_eq!(o.main, Path::new("/c/keepd/keepd.toml"));
        assert_eq!(o.runtime_dir, Path::new("/r/keepd"));
        assert_eq!(o.state_dir, Path::new("/home/ann/.local/state/keepd"));
    }

    #[test]
    fn a_named_file_reads_only_the_folder_beside_it() {
        let o = Options::current(true, Some(Path::new("/srv/k/my.toml")), Some(String::new())).unwrap();
        assert_eq!((o.main.as_path(), o.explicit), (Path::new("/srv/k/my.toml"), true));
        assert_eq!(o.drop_ins, [PathBuf::from("/srv/k/conf.d")]);
        assert_eq!(o.mode, Mode::User);
        assert_eq!(o.profile, None);
        assert!(!o.host.is_empty());
    }
}
