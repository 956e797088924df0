//! Why keys of units have no counterpart, as clauses for people. Data, and a look-up.

const EXACT: &[(&[&str], &str)] = &[
    (
        &["ExecStartPost", "ExecStopPost", "ExecCondition"],
        "keepd runs nothing after a start or a stop, and nothing as a condition",
    ),
    (&["PIDFile"], "keepd holds the process itself"),
    (&["BusName"], "keepd does not wait for a name on D-Bus"),
    (
        &["NotifyAccess", "FileDescriptorStoreMax", "FileDescriptorStorePreserve"],
        "[ready] is not supported by this version",
    ),
    (&["Sockets", "NonBlocking"], "services with a socket of keepd's are not supported by this version"),
    (
        &[
            "Conflicts",
            "PartOf",
            "Requisite",
            "OnFailure",
            "OnSuccess",
            "Upholds",
            "PropagatesReloadTo",
            "ReloadPropagatedFrom",
            "PropagatesStopTo",
            "StopPropagatedFrom",
            "JoinsNamespaceOf",
        ],
        "keepd has requires, wants, after and binds-to",
    ),
    (
        &["RequiresMountsFor", "WantsMountsFor", "DefaultDependencies", "IgnoreOnIsolate", "AllowIsolate"],
        "it is about systemd's own start-up",
    ),
    (&["RefuseManualStart", "RefuseManualStop"], "keepctl starts and stops any service for whoever may"),
    (&["Also", "DefaultInstance"], "it is about enabling units"),
    (&["PermissionsStartOnly"], "all commands of a service run as its user"),
    (&["RestartForceExitStatus", "RestartMode"], "keepd has restart, success-exit and no-restart-exit"),
    (
        &[
            "TimeoutAbortSec",
            "RuntimeMaxSec",
            "RuntimeRandomizedExtraSec",
            "TimeoutStartFailureMode",
            "TimeoutStopFailureMode",
        ],
        "keepd limits the time of a stop only",
    ),
    (
        &[
            "SendSIGHUP",
            "SendSIGKILL",
            "FinalKillSignal",
            "WatchdogSignal",
            "RestartKillSignal",
            "ReloadSignal",
        ],
        "a stop is stop-command, stop-signal and, after stop-timeout, SIGKILL",
    ),
    (
        &["OOMPolicy", "ManagedOOMSwap", "ManagedOOMMemoryPressure", "ManagedOOMPreference"],
        "the kernel kills a whole service, or none of it, where resources.memory-max is set",
    ),
    (
        &["Slice", "Delegate", "DelegateSubgroup", "DisableControllers"],
        "each run has a cgroup of its own, which keepd makes",
    ),
    (&["PassEnvironment", "UnsetEnvironment"], "nothing of keepd's own environment is passed on"),
    (&["PAMName", "UtmpIdentifier", "UtmpMode", "KeyringMode"], "keepd opens no session of a user"),
    (
        &["RootDirectory", "RootImage", "RootEphemeral", "MountAPIVFS"],
        "keepd has no root folders of services",
    ),
    (
        &["CacheDirectory", "LogsDirectory", "ConfigurationDirectory"],
        "it is to be made for its user before it is started",
    ),
    (
        &[
            "CacheDirectoryMode",
            "LogsDirectoryMode",
            "ConfigurationDirectoryMode",
            "RuntimeDirectoryPreserve",
        ],
        "keepd has no such setting for folders",
    ),
    (
        &["SetCredential", "LoadCredentialEncrypted", "SetCredentialEncrypted", "ImportCredential"],
        "keepd takes a credential from a file that is named in full",
    ),
];

/// By how keys begin; the first that fits counts.
const PREFIXES: &[(&[&str], &str)] = &[
    (&["X-"], "systemd does not read it either"),
    (&["Condition", "Assert"], "keepd starts what is configured, on whatever host"),
    (&["Syslog", "Log", "TTY", "StandardInput"], "keepd keeps the output in a log of its own"),
    (
        &["JobTimeout", "JobRunning", "StartLimitAction", "FailureAction", "SuccessAction", "Reboot"],
        "keepd acts on services, not on the host",
    ),
    (
        &[
            "Protect",
            "Private",
            "Restrict",
            "SystemCall",
            "Lock",
            "IPAddress",
            "Device",
            "Bind",
            "MemoryDeny",
            "RemoveIPC",
            "Inaccessible",
            "ReadOnly",
            "NoExec",
            "Exec",
            "Temporary",
            "ProcSubset",
            "MountFlags",
            "SecureBits",
            "SELinux",
            "AppArmor",
            "Smack",
            "Personality",
        ],
        "keepd's sandbox has no such part",
    ),
    (
        &[
            "CPU",
            "IO",
            "NUMA",
            "TimerSlack",
            "Memory",
            "BlockIO",
            "Tasks",
            "StartupCPU",
            "StartupIO",
            "Allowed",
        ],
        "keepd has no such limit",
    ),
];

/// A clause.
pub(super) fn reason(section: &str, key: &str) -> &'static str {
    if section.starts_with("X-") {
        return "systemd does not read it either";
    }
    let exact = EXACT.iter().find(|(keys, _)| keys.contains(&key));
    let begins = || PREFIXES.iter().find(|(prefixes, _)| prefixes.iter().any(|p| key.starts_with(p)));
    exact.or_else(begins).map_or("keepd has no such setting", |(_, why)| why)
}
