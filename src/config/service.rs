//! One service: its layers of settings to one entry of the plan per instance.

use super::{
    Context, checks,
    depends::{Services, names},
    diagnostic::{At, Problems},
    expand::{Vars, expand},
    probes, provision, resources, sandbox,
    schema::{Kind, LIMITS},
    settings::Settings,
    users::Account,
    value::Item,
};
use crate::plan::{
    Backoff, Breaker, EnvFile, Identity, LaunchSpec, Limit, LogFormat, LogSpec, Mode, Name, OnFull, Oneshot,
    Provision, Receiver, Reload, Restart, Schedule, ServiceSpec, Stderr, Stdout, StopSpec, Tells,
};
use std::{collections::BTreeMap, path::PathBuf};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A service whose layers have been put together.
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    /// Of the name.
    pub(super) at: At,
    pub(super) settings: Settings<'a>,
}

/// What a service depends on.
pub(super) struct Dependencies {
    pub(super) requires: Vec<Name>,
    pub(super) wants: Vec<Name>,
    pub(super) after: Vec<Name>,
    pub(super) binds_to: Vec<Name>,
}

impl<'a> Service<'a> {
    pub(super) fn instances(&self) -> u32 {
        self.settings.small("instances").max(1)
    }

    pub(super) fn dependencies(
        &self,
        services: &Services<'a>,
        edges: &mut super::depends::Edges<'a>,
        problems: &mut Problems,
    ) -> Dependencies {
        let mut of = |kind| services.resolve(kind, self.settings.items(kind), edges, problems);
        Dependencies {
            requires: of("requires"),
            wants: of("wants"),
            after: of("after"),
            binds_to: of("binds-to"),
        }
    }

    /// The entries of the plan, one per instance.
    pub(super) fn build(
        &self,
        account: &Account,
        identity: Option<&Identity>,
        dependencies: &Dependencies,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Vec<ServiceSpec> {
        let s = &self.settings;
        if s.missing("command") || s.entry("command").is_some() && s.items("command").is_empty() {
            let at = s.written(&["command"]).unwrap_or(self.at);
            problems.error(at, format!("`command` is missing: service `{}` has nothing to run", self.name));
        }
        checks::service(self, context.shutdown_timeout, problems);
        resources::check(self, problems);
        sandbox::check(self, context, identity, problems);
        let oneshot = self.oneshot(problems);
        let count = self.instances();
        let instances = names(self.name, count).into_iter().zip(0..);
        instances
            .map(|(name, index)| {
                let port = s.count("port").map(|p| p + u64::from(index));
                let vars = Vars {
                    name: name.as_str(),
                    instance: index,
                    port,
                    profile: context.profile,
                    host: &context.options.host,
                };
                let mut at = Instance { service: self, vars, context, problems };
                let (ready, live) = (at.ready(), at.live());
                if oneshot.is_some() && (ready.is_some() || live.is_some()) {
                    let message =
                        format!("service `{}` is a oneshot: `ready` and `live` are for daemons", self.name);
                    at.problems.error(self.at, message);
                }
                let launch = at.launch(account, identity, probes::tells(ready.as_ref(), live.as_ref()));
                sandbox::reachable(&launch, s, self.at, at.problems);
                let (stop, reload) = (at.stop(), at.reload());
                ServiceSpec {
                    instance: (count > 1).then_some(index),
                    description: s.text("description").map_or(String::new(), |(t, _)| t.to_owned()),
                    oneshot: oneshot.clone(),
                    autostart: s.flag("autostart"),
                    requires: dependencies.requires.clone(),
                    wants: dependencies.wants.clone(),
                    after: dependencies.after.clone(),
                    binds_to: dependencies.binds_to.clone(),
                    restart: self.restart(),
                    success_exit: s.exits("success-exit").to_vec(),
                    no_restart_exit: s.exits("no-restart-exit").to_vec(),
                    backoff: self.backoff(),
                    breaker: self.breaker(),
                    stop,
                    reload,
                    launch,
                    resources: resources::resources(s),
                    watch: resources::watch(s),
                    ready,
                    live,
                    logs: self.logs(&name, context),
                    name,
                }
            })
            .collect()
    }

    pub(super) fn restart(&self) -> Restart {
        match self.settings.choice("restart") {
            "always" => Restart::Always,
            "never" => Restart::Never,
            _ => Restart::OnFailure,
        }
    }

    /// What `type`, `timeout` and `schedule` say; `None` for a daemon.
    fn oneshot(&self, problems: &mut Problems) -> Option<Oneshot> {
        let s = &self.settings;
        if s.choice("type") != "oneshot" {
            for key in ["schedule", "timeout"] {
                if let Some(at) = s.written(&[key]) {
                    let message =
                        format!("`{key}` takes `type = \"oneshot\"`: service `{}` is a daemon", self.name);
                    problems.error(at, message);
                }
            }
            return None;
        }
        if let (Restart::Always, at) = (self.restart(), s.written(&["restart"]).unwrap_or(self.at)) {
            problems.error(at, "`restart` cannot be \"always\" here: a oneshot that has succeeded is done");
        }
        let schedule = s.text("schedule").and_then(|(text, at)| match Schedule::parse(text) {
            Ok(schedule) => Some(schedule),
            Err(why) => {
                problems.error(at, format!("`schedule` cannot be \"{}\": {why}", text.escape_debug()));
                None
            }
        });
        Some(Oneshot { timeout: s.time("timeout"), schedule })
    }

    pub(super) fn backoff(&self) -> Backoff {
        let s = &self.settings;
        Backoff {
            delay: s.time("backoff.delay").unwrap_or_default(),
            factor_permille: s.permille("backoff.factor"),
            max: s.time("backoff.max").unwrap_or_default(),
            jitter_permille: s.permille("backoff.jitter"),
            reset_after: s.time("backoff.reset-after").unwrap_or_default(),
        }
    }

    pub(super) fn breaker(&self) -> Breaker {
        let s = &self.settings;
        Breaker {
            failures: s.small("breaker.failures"),
            within: s.time("breaker.within").unwrap_or_default(),
            retry_every: s.time("breaker.retry-every"),
        }
    }

    fn logs(&self, name: &Name, context: &Context<'_>) -> LogSpec {
        let s = &self.settings;
        LogSpec {
            dir: context.log_dir.join(name.as_str()),
            max_size: s.size("logs.max-size").unwrap_or(1),
            rotate: s.rotate("logs.rotate"),
            keep: s.small("logs.keep"),
            keep_for: s.time("logs.keep-for"),
            max_total: s.size("logs.max-total"),
            on_full: if s.choice("logs.on-full") == "block" { OnFull::Block } else { OnFull::Drop },
            format: match s.choice("logs.format") {
                "timestamp" => LogFormat::Timestamp,
                "json" => LogFormat::Json,
                _ => LogFormat::Raw,
            },
            max_line: s.size("logs.max-line").unwrap_or(1),
            compress: s.choice("logs.compress") == "gzip",
            forward: Receiver::ALL.into_iter().filter(|r| s.lists("logs.forward", r.word())).collect(),
        }
    }
}

/// One instance while it is being built.
pub(super) struct Instance<'s, 'a> {
    pub(super) service: &'s Service<'a>,
    vars: Vars<'s>,
    pub(super) context: &'s Context<'s>,
    pub(super) problems: &'s mut Problems,
}

impl Instance<'_, '_> {
    pub(super) fn expand(&mut self, text: &str, at: At) -> String {
        match expand(text, &self.vars) {
            Ok(text) => text.into_owned(),
            Err(why) => {
                self.problems.error(at, why);
                text.to_owned()
            }
        }
    }

    /// A program with a slash in it is a path, relative to the file's folder; one without is left to PATH.
    pub(super) fn command(&mut self, items: &[Item]) -> Vec<String> {
        let mut argv: Vec<String> = items.iter().map(|i| self.expand(&i.text, i.at)).collect();
        if let (Some(program), Some(item)) = (argv.first_mut(), items.first())
            && program.contains('/')
        {
            *program = self.context.path(program, item.at).to_string_lossy().into_owned();
        }
        argv
    }

    fn launch(&mut self, account: &Account, identity: Option<&Identity>, tells: Tells) -> LaunchSpec {
        let s = &self.service.settings;
        let argv = self.command(s.items("command"));
        let provision = self.provision(identity);
        let mut sandbox = sandbox::sandbox(self.service, self.context, identity);
        provision::open_to(&provision, &mut sandbox);
        LaunchSpec {
            argv,
            directory: self.directory(account),
            identity: identity.cloned(),
            umask: s.mask("umask"),
            env: self.env(account, &provision),
            env_files: self.env_files(),
            limits: self.limits(),
            no_new_privileges: s.flag("sandbox.no-new-privileges"),
            sandbox,
            scheduling: sandbox::scheduling(s),
            provision,
            tells,
            stdout: if s.choice("logs.stdout") == "discard" { Stdout::Discard } else { Stdout::Capture },
            stderr: match s.choice("logs.stderr") {
                "separate" => Stderr::Separate,
                "discard" => Stderr::Discard,
                _ => Stderr::Merge,
            },
        }
    }

    fn directory(&mut self, account: &Account) -> PathBuf {
        match (self.service.settings.text("directory"), self.context.options.mode) {
            (Some((text, at)), _) => {
                let text = self.expand(text, at);
                self.context.path(&text, at)
            }
            (None, Mode::System) => "/".into(),
            (None, Mode::User) => account.home.clone(),
        }
    }

    fn env(&mut self, account: &Account, provision: &Provision) -> BTreeMap<String, String> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), text(&account.home)),
            ("USER".to_owned(), account.name.clone()),
            ("LOGNAME".to_owned(), account.name.clone()),
            ("SHELL".to_owned(), text(&account.shell)),
        ]);
        if let Some(port) = self.vars.port {
            env.insert("PORT".to_owned(), port.to_string());
        }
        for (name, value) in provision::variables(provision) {
            env.insert(name.to_owned(), value);
        }
        for (name, item) in self.service.settings.map("env") {
            env.insert(name.clone(), self.expand(&item.text, item.at));
        }
        env
    }

    fn env_files(&mut self) -> Vec<EnvFile> {
        let items = self.service.settings.items("env-files");
        items
            .iter()
            .map(|item| {
                let text = self.expand(&item.text, item.at);
                let (path, optional) = text.strip_prefix('-').map_or((text.as_str(), false), |p| (p, true));
                if path.is_empty() {
                    self.problems.error(item.at, "`env-files` has an entry that names no file");
                }
                EnvFile { path: self.context.path(path, item.at), optional }
            })
            .collect()
    }

    fn limits(&self) -> Vec<Limit> {
        let mut out = Vec::new();
        if !self.service.settings.any("limits.") {
            return out;
        }
        for key in LIMITS {
            if let (Kind::Limit(resource, _), Some((soft, hard))) =
                (&key.kind, self.service.settings.limit(key.path))
            {
                out.push(Limit { name: key.name().to_owned(), resource: *resource, soft, hard });
            }
        }
        out
    }

    fn stop(&mut self) -> StopSpec {
        let s = &self.service.settings;
        StopSpec {
            signal: s.signal("stop-signal").unwrap_or(15),
            timeout: s.time("stop-timeout").unwrap_or_default(),
            command: self.command(s.items("stop-command")),
        }
    }

    fn reload(&mut self) -> Reload {
        let s = &self.service.settings;
        match s.items("reload-command") {
            [] => Reload::Signal(s.signal("reload-signal").unwrap_or(1)),
            items => Reload::Command(self.command(items)),
        }
    }
}
