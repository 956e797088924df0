//! One key with one value, outside of any file: what a program that writes configurations can ask beforehand. What
//! several keys mean together is seen by [`super::load`] alone.

use super::{Mode, diagnostic::Problems, document, sandbox::ROOTS, source::Source};
use std::path::Path;

/// Whether this version takes `value` (TOML on one line) for the key `path` of a service, as `stop-timeout` or
/// `logs.keep`. The error is the message that a file with it would get.
pub fn takes(path: &str, value: &str, mode: Mode) -> Result<(), String> {
    let roots = || ROOTS.contains(&path) || matches!(path, "user" | "group" | "groups" | "credentials");
    if mode == Mode::User && roots() {
        return Err(format!("`{path}` takes a keepd that root started"));
    }
    let text = format!("[service.x]\n{path} = {value}\n");
    let sources = [Source::new("/x".into(), Path::new("/"), text)];
    let mut problems = Problems::default();
    document::parse(0, &sources, &mut problems);
    match problems.diagnostics(&sources).into_iter().next() {
        Some(first) => Err(first.message),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_taken_as_a_file_would_be() {
        let takes = |path, value| takes(path, value, Mode::System);
        assert_eq!(takes("stop-timeout", "\"10s\""), Ok(()));
        assert_eq!(takes("limits.open-files", "\"1024:unlimited\""), Ok(()));
        assert_eq!(takes("env", "{ A = \"x\" }"), Ok(()));
        for (path, value, says) in [
            ("stop-timeout", "\"soon\"", "`stop-timeout` cannot be \"soon\""),
            ("type", "\"sometimes\"", "`type` cannot be \"sometimes\""),
            ("rollout", "\"all\"", "`rollout` is not supported by this version"),
            ("colour", "1", "unknown key `colour`"),
        ] {
            let why = takes(path, value).unwrap_err();
            assert!(why.starts_with(says), "{path}: {why}");
        }
    }

    #[test]
    fn what_takes_root_is_not_for_an_ordinary_users_keepd() {
        for (path, value) in [("user", "\"web\""), ("sandbox.private-tmp", "true")] {
            assert_eq!(takes(path, value, Mode::System), Ok(()));
            assert!(takes(path, value, Mode::User).unwrap_err().contains("that root started"));
        }
        assert_eq!(takes("umask", "\"0027\"", Mode::User), Ok(()));
    }
}
