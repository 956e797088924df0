//! Documents to plan: chooses the profile, layers the tables, and puts services together with what they
//! depend on.

use super::{
    Context, Options, daemon,
    depends::{self, Services},
    diagnostic::{At, Problems},
    document::Document,
    hooks, identity, provision,
    schema::closest,
    service::Service,
    settings::{Layer, Settings},
    source::Source,
    users::Users,
};
use crate::plan::{Mode, Plan};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

/// Builds the plan; it is of use only where no problem has been reported.
pub(super) fn build(
    documents: &[Document],
    options: &Options,
    sources: &[Source],
    problems: &mut Problems,
) -> Plan {
    let mut users = Users::new(&options.databases);
    let profile = profile(documents, options, problems);
    let settings = sum(documents, |d| &d.daemon);
    let mut context = Context {
        options,
        sources,
        profile,
        runtime_dir: PathBuf::new(),
        state_dir: PathBuf::new(),
        log_dir: PathBuf::new(),
        shutdown_timeout: settings.time("shutdown-timeout").unwrap_or_default(),
    };
    let api = sum(documents, |d| &d.api);
    let logs = sum(documents, |d| &d.logs);
    let daemon = daemon::build(&settings, &api, &logs, &context, &mut users, problems);
    context.runtime_dir.clone_from(&daemon.runtime_dir);
    context.state_dir.clone_from(&daemon.state_dir);
    context.log_dir.clone_from(&daemon.log_dir);
    let services = services(documents, profile, sources, problems);
    let own_user = match (options.mode, daemon.manager) {
        (Mode::User, _) => Some(""),
        (Mode::System, Some(_)) => settings.text("user").map(|(name, _)| name),
        (Mode::System, None) => None,
    };
    let hooks = hooks::build(documents, own_user, &context, &mut users, problems);
    let mut plan = Plan { daemon, services: Vec::new(), hooks, warnings: Vec::new() };
    let known = Services::new(services.iter().map(|s| (s.name, s.instances())));
    unknown_overlays(documents, &known, problems);
    let mut graph = BTreeMap::new();
    for service in &services {
        let mut edges = Vec::new();
        let dependencies = service.dependencies(&known, &mut edges, problems);
        graph.insert(service.name, edges);
        let resolved =
            identity::resolve(&service.settings, service.at, options.mode, &options.me, &mut users, problems);
        // Where there is none, which is an error, the rest is still checked, as somebody.
        let (account, identity) = resolved.unwrap_or_else(|| (options.me.clone(), None));
        plan.services.extend(service.build(&account, identity.as_ref(), &dependencies, &context, problems));
    }
    depends::refuse_cycles(&graph, problems);
    plan.services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    one_writer_each(&plan, &settings, problems);
    provision::apart(&plan, &services, problems);
    if services.is_empty() {
        problems.warn(At::BUILT_IN, "no service is configured");
    }
    plan
}

fn sum<'d>(documents: &'d [Document], part: fn(&Document) -> &Layer) -> Settings<'d> {
    let mut sum = Settings::default();
    documents.iter().for_each(|d| sum.put(part(d)));
    sum
}

/// The chosen profile: the command line's, or else the last one that a file names.
fn profile<'d>(documents: &'d [Document], options: &'d Options, problems: &mut Problems) -> Option<&'d str> {
    let written = documents.iter().rev().find_map(|d| d.profile.as_ref());
    let (name, at) = match (&options.profile, written) {
        (Some(name), _) => (name.as_str(), At::BUILT_IN),
        (None, Some((name, at))) => (name.as_str(), *at),
        (None, None) => return None,
    };
    let defined: BTreeSet<&str> =
        documents.iter().flat_map(|d| &d.profiles).map(|p| p.name.as_str()).collect();
    if !defined.is_empty() && !defined.contains(name) {
        let near =
            closest(name, defined.into_iter()).map_or(String::new(), |c| format!(", did you mean `{c}`?"));
        problems.warn(at, format!("no file defines the chosen profile `{name}`{near}"));
    }
    Some(name)
}

/// Every service with its layers put together, in the order of the files.
fn services<'d>(
    documents: &'d [Document],
    profile: Option<&str>,
    sources: &[Source],
    problems: &mut Problems,
) -> Vec<Service<'d>> {
    let chosen = || documents.iter().flat_map(|d| &d.profiles).filter(|p| Some(p.name.as_str()) == profile);
    let mut base = sum(documents, |d| &d.defaults);
    chosen().for_each(|p| base.put(&p.defaults));
    let mut overlays: HashMap<&str, Vec<&Layer>> = HashMap::new();
    for table in chosen().flat_map(|p| &p.services) {
        overlays.entry(&table.name).or_default().push(&table.layer);
    }
    let mut first: HashMap<&str, At> = HashMap::new();
    let mut out = Vec::new();
    for table in documents.iter().flat_map(|d| &d.services) {
        if let Some(at) = first.get(table.name.as_str()) {
            let source = &sources[at.source as usize];
            let (line, column) = source.position(at.start);
            let place = format!("{}:{line}:{column}", source.shown);
            problems.error(table.at, format!("service `{}` is defined twice, first at {place}", table.name));
            continue;
        }
        first.insert(&table.name, table.at);
        let mut settings = base.clone();
        settings.put(&table.layer);
        overlays.get(table.name.as_str()).into_iter().flatten().for_each(|layer| settings.put(layer));
        out.push(Service { name: &table.name, at: table.at, settings });
    }
    out
}

/// An overlay, chosen or not, changes a service; it does not make one.
fn unknown_overlays(documents: &[Document], known: &Services<'_>, problems: &mut Problems) {
    for profile in documents.iter().flat_map(|d| &d.profiles) {
        for table in profile.services.iter().filter(|t| !known.has(&t.name)) {
            let near = known.near(&table.name);
            let message =
                format!("profile `{}` overlays an unknown service `{}`{near}", profile.name, table.name);
            problems.error(table.at, message);
        }
    }
}

/// Services write to folders of their own, by their names; the daemon's log must not be in one of them.
fn one_writer_each(plan: &Plan, daemon: &Settings<'_>, problems: &mut Problems) {
    let (Some(file), Some(at)) = (&plan.daemon.log_file, daemon.written(&["log-file"])) else { return };
    if let Some(service) = plan.services.iter().find(|s| file.starts_with(&s.logs.dir)) {
        problems.error(
            at,
            format!("`daemon.log-file` cannot be in the log folder of service `{}`", service.name),
        );
    }
}
