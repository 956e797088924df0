//! What a service finds in its environment, and its command, as exec wants them: read and put together by the
//! launcher, before the child is born. Environment files are read here, and are held nowhere else.

#![forbid(unsafe_code)]

use super::{
    envfile,
    order::Role,
    provide,
    step::{Failure, Step},
};
use crate::{
    plan::{EnvFile, LaunchSpec},
    sys::{
        Errno, fd,
        process::Strings,
        trusted::{self, Reader},
    },
};
use std::{collections::BTreeMap, ffi::CString, os::fd::AsFd};

/// Largest environment file that is read.
const ENV_FILE_MAX: u64 = 1 << 20;

/// A command, ready to be executed.
#[derive(Debug)]
pub(super) struct Command {
    /// As it is configured.
    pub(super) program: String,
    /// What is tried, in order: `program` itself, or where it may be in the folders of PATH.
    pub(super) candidates: Vec<CString>,
    /// The PATH that was searched; none for a program with a slash.
    pub(super) path: Option<String>,
    pub(super) argv: Strings,
    pub(super) env: Strings,
}

impl Command {
    /// Reads the environment files, and puts it all together.
    pub(super) fn new(
        launch: &LaunchSpec,
        argv: &[String],
        role: &Role,
        invocation: &str,
        ways: Vec<(String, String)>,
    ) -> Result<Command, Failure> {
        let Some(program) = argv.first() else {
            return Err(Failure::ours(Step::Exec, "the command", "it is empty"));
        };
        let text = |s: String| {
            CString::new(s)
                .map_err(|_| Failure::ours(Step::Exec, program, "a NUL character in it or its settings"))
        };
        let mut env = environment(launch, role, invocation)?;
        env.extend(ways);
        let args = argv.iter().map(|a| text(a.clone())).collect::<Result<Vec<_>, _>>()?;
        let vars = env.iter().map(|(k, v)| text(format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
        let path = (!program.contains('/')).then(|| env.get("PATH").cloned().unwrap_or_default());
        let candidates = match &path {
            None => vec![text(program.clone())?],
            Some(path) => path
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| text(format!("{}/{program}", dir.trim_end_matches('/'))))
                .collect::<Result<Vec<_>, _>>()?,
        };
        Ok(Command { program: program.clone(), candidates, path, argv: args.into(), env: vars.into() })
    }
}

fn environment(
    launch: &LaunchSpec,
    role: &Role,
    invocation: &str,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = launch.env.clone();
    for file in &launch.env_files {
        env.extend(read(file, provide::reader(launch))?);
    }
    env.insert("INVOCATION_ID".into(), invocation.into());
    if let Role::Job { main, .. } | Role::Exec { main, .. } | Role::Probe { main, .. } = role {
        env.insert("MAINPID".into(), main.to_string());
    }
    if let Role::Exec { terminal: Some(term), .. } = role {
        env.insert("TERM".into(), term.clone());
    }
    Ok(env)
}

fn read(file: &EnvFile, reader: Option<Reader<'_>>) -> Result<Vec<(String, String)>, Failure> {
    let object = || file.path.display().to_string();
    let failed = |e| Failure::call(Step::EnvFile, e, object());
    let opened = match trusted::open(&file.path, reader) {
        Err(Errno::ENOENT) if file.optional => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    match fd::kind(opened.as_fd()).map_err(failed)? {
        fd::Kind::Regular { size, .. } if size <= ENV_FILE_MAX => {}
        fd::Kind::Regular { .. } => {
            return Err(Failure::ours(Step::EnvFile, object(), "it is larger than 1 MiB"));
        }
        _ => return Err(Failure::ours(Step::EnvFile, object(), "it is not a regular file")),
    }
    let text = std::io::read_to_string(std::io::Read::take(std::fs::File::from(opened), ENV_FILE_MAX))
        .map_err(|e| Failure::ours(Step::EnvFile, object(), e.to_string()))?;
    envfile::parse(&text).map_err(|why| Failure::ours(Step::EnvFile, object(), why))
}
