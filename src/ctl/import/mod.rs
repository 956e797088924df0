//! `import`: what other supervisors are configured with, as keepd's TOML. Each key of a source is mapped or named as
//! not kept. It reads the files that it is given and those that they include, and writes none.

mod args;
mod batch;
mod draft;
mod pm2;
mod procfile;
mod supervisor;
mod systemd;
#[cfg(test)]
mod tests;
mod text;
mod toml;

pub(super) use args::ImportArgs;

use super::fail::{FAILED, Fail, LEFT_OUT};
use crate::config::Options;
use args::From;
use batch::Batch;
use draft::Setting;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// The largest file that is read.
const MAX: u64 = 4 << 20;

pub(super) fn run(args: &ImportArgs, out: &mut impl Write, err: &mut impl Write) -> Result<u8, Fail> {
    // As root and as an ordinary user alike, what is printed is for the keepd that this user would have.
    let mode = Options::current(args.user, None, None)
        .map_err(|e| Fail::new(FAILED, format!("cannot find out who this user is: {e}")))?
        .mode;
    let setting = Setting { mode, run_as: args.run_as.clone(), env: args.env.clone() };
    let batch = import(args.from, &args.files, &setting)?;
    out.write_all(batch.toml(args.from.whose()).as_bytes())?;
    out.flush()?;
    // Whoever reads stdout only is told by the exit status.
    let _ = err.write_all(batch.summary().as_bytes());
    Ok(if batch.left_out() == 0 { 0 } else { LEFT_OUT })
}

fn import(from: From, files: &[PathBuf], setting: &Setting) -> Result<Batch, Fail> {
    let mut batch = Batch::default();
    for file in files {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let read = read(&path).and_then(|text| match from {
            From::Supervisor => supervisor::import(&path, &text, setting, &mut batch),
            From::Systemd => systemd::import(&path, &text, setting, &mut batch),
            From::Procfile => procfile::import(&path, &text, setting, &mut batch),
            From::Pm2 => pm2::import(&path, &text, setting, &mut batch),
        });
        read.map_err(|why| Fail::new(FAILED, format!("cannot import {}: {why}", file.display())))?;
    }
    batch.finish(setting);
    systemd::order(&mut batch);
    Ok(batch)
}

/// A text file; the error is a clause.
fn read(path: &Path) -> Result<String, String> {
    let meta = fs::metadata(path).map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    if meta.len() > MAX {
        return Err("it is larger than 4 MiB".into());
    }
    String::from_utf8(fs::read(path).map_err(|e| e.to_string())?).map_err(|_| "it is not UTF-8".into())
}

/// A file's name without its folder.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
