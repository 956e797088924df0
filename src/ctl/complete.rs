//! Completion in shells: the script that a shell loads, and what keepctl answers that script. The script knows no
//! command: it asks keepctl, which knows them all and asks keepd for its services. Where keepd does not answer at
//! once there are none; a completion never says why.

use super::{
    args::Cli,
    client::{Server, decode},
    select, socket,
};
use crate::wire::Briefs;
use clap::CommandFactory;
use clap_complete::{CompleteEnv, CompletionCandidate, Shell, env::Shells};
use std::{
    ffi::OsString,
    io::{self, Write},
    time::Duration,
};

/// Set by the scripts, to the name of the shell.
const VARIABLE: &str = "KEEPCTL_COMPLETE";
/// Who typed a Tab waits no longer than this.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a completion script; false if that is not who called.
pub(super) fn answer(args: &[OsString]) -> clap::error::Result<bool> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).try_complete(args, folder.as_deref())
}

/// Prints the script for a shell.
pub(super) fn script(shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let shells = Shells::builtins();
    let known = shells.completer(&shell.to_string());
    let known = known.ok_or_else(|| io::Error::other(format!("there is no completion for {shell}")))?;
    known.write_registration(VARIABLE, "keepctl", "keepctl", "keepctl", out)?;
    if shell == Shell::Zsh {
        // zsh loads the file as a function at the first Tab, which wants its answer too.
        writeln!(out, r#"[ "$funcstack[1]" != _keepctl ] || _clap_dynamic_completer_keepctl "$@""#)?;
    }
    Ok(())
}

/// What can stand where services are named: services, and instances where there are several.
pub(super) fn services() -> Vec<CompletionCandidate> {
    let server = Server::new(socket::candidates(None, &socket::Surroundings::of_process()));
    let asked = async {
        let mut client = server.connect().await?;
        select::list(&mut client).await
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    // The timer needs the runtime that it is made in.
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
    answer.ok().and_then(Result::ok).map_or_else(Vec::new, |list| named(&list))
}

/// The names in a list of services as keepd gives it.
fn named(list: &[u8]) -> Vec<CompletionCandidate> {
    let Ok(Briefs { services }) = decode::<Briefs<'_>>(list) else {
        return Vec::new();
    };
    let mut candidates: Vec<CompletionCandidate> = Vec::new();
    let mut last = "";
    for s in &services {
        let help = (!s.description.is_empty()).then(|| s.description.to_string().into());
        // Instances of a service follow one another.
        if s.service != s.name && s.service != last {
            candidates.push(CompletionCandidate::new(s.service.as_ref()).help(help.clone()));
        }
        last = s.service.as_ref();
        candidates.push(CompletionCandidate::new(s.name.as_ref()).help(help));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_several_instances_is_offered_once_and_so_is_each_instance() {
        let service = |name: &str, service: &str| crate::wire::Service {
            name: name.into(),
            service: service.into(),
            ..Default::default()
        };
        let services = vec![service("db", "db"), service("web@0", "web"), service("web@1", "web")];
        let list = serde_json::to_vec(&crate::wire::Services { services }).unwrap();
        let names: Vec<OsString> = named(&list).iter().map(|c| c.get_value().to_owned()).collect();
        assert_eq!(names, ["db", "web", "web@0", "web@1"]);
        assert!(named(b"no list").is_empty());
    }
}
