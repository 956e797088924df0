//! Where the daemon listens.

use std::{
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const SYSTEM: &str = "/run/keepd/api.sock";

/// What the search depends on.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) keepd_socket: Option<OsString>,
    pub(super) xdg_runtime_dir: Option<OsString>,
    pub(super) xdg_state_home: Option<OsString>,
    pub(super) home: Option<OsString>,
    pub(super) uid: u32,
}

impl Surroundings {
    pub(super) fn of_process() -> Surroundings {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        Surroundings {
            keepd_socket: var("KEEPD_SOCKET"),
            xdg_runtime_dir: var("XDG_RUNTIME_DIR"),
            xdg_state_home: var("XDG_STATE_HOME"),
            home: var("HOME"),
            // The owner of /proc/self is the effective user.
            uid: std::fs::metadata("/proc/self").map_or(0, |m| m.uid()),
        }
    }
}

/// The sockets to try, best first. Whoever names one gets that or none.
pub(super) fn candidates(named: Option<PathBuf>, here: &Surroundings) -> Vec<PathBuf> {
    if let Some(path) = named.or_else(|| here.keepd_socket.clone().map(PathBuf::from)) {
        return vec![path];
    }
    let mut list = vec![PathBuf::from(SYSTEM)];
    let run_user = || format!("/run/user/{}", here.uid).into();
    let runtime: PathBuf = here.xdg_runtime_dir.clone().map_or_else(run_user, PathBuf::from);
    list.push(runtime.join("keepd/api.sock"));
    let state = here.xdg_state_home.clone().map(PathBuf::from);
    let state = state.or_else(|| here.home.as_ref().map(|h| Path::new(h).join(".local/state")));
    list.extend(state.map(|s| s.join("keepd/run/api.sock")));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_socket_is_the_only_one() {
        let here = Surroundings { keepd_socket: Some("/env".into()), ..Default::default() };
        assert_eq!(candidates(Some("/arg".into()), &here), [Path::new("/arg")]);
        assert_eq!(candidates(None, &here), [Path::new("/env")]);
    }

    #[test]
    fn the_system_comes_before_the_user() {
        let mut here = Surroundings { uid: 1000, home: Some("/home/a".into()), ..Default::default() };
        let paths = [
            "/run/keepd/api.sock",
            "/run/user/1000/keepd/api.sock",
            "/home/a/.local/state/keepd/run/api.sock",
        ];
        assert_eq!(candidates(None, &here), paths.map(PathBuf::from));
        here.xdg_runtime_dir = Some("/x".into());
        here.xdg_state_home = Some("/s".into());
        let paths = ["/run/keepd/api.sock", "/x/keepd/api.sock", "/s/keepd/run/api.sock"];
        assert_eq!(candidates(None, &here), paths.map(PathBuf::from));
    }
}
