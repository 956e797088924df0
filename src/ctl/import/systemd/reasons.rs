//! Why keys of units have no counterpart, for people.

/// A clause.
pub(super) fn reason(section: &str, key: &str) -> &'static str {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|p| key.starts_with(p));
    match key {
        _ if section.starts_with("X-") || key.starts_with("X-") => "systemd does not read it either",
        "ExecStartPost" | "ExecStopPost" | "ExecCondition" => {
            "keepd runs nothing after a start or a stop, and nothing as a condition"
        }
        "PIDFile" => "keepd holds the process itself",
        "BusName" => "keepd does not wait for a name on D-Bus",
        "NotifyAccess" | "FileDescriptorStoreMax" | "FileDescriptorStorePreserve" => {
            "[ready] is not supported by this version"
        }
        "Sockets" | "NonBlocking" => "services with a socket of keepd's are not supported by this version",
        "Conflicts"
        | "PartOf"
        | "Requisite"
        | "OnFailure"
        | "OnSuccess"
        | "Upholds"
        | "PropagatesReloadTo"
        | "ReloadPropagatedFrom"
        | "StopPropagatedFrom"
        | "PropagatesStopTo"
        | "JoinsNamespaceOf" => "keepd has requires, wants, after and binds-to",
        "RequiresMountsFor"
        | "WantsMountsFor"
        | "DefaultDependencies"
        | "IgnoreOnIsolate"
        | "AllowIsolate" => "it is about systemd's own start-up",
        "RefuseManualStart" | "RefuseManualStop" => "keepctl starts and stops any service for whoever may",
        "Also" | "DefaultInstance" => "it is about enabling units",
        "PermissionsStartOnly" => "all commands of a service run as its user",
        "RestartForceExitStatus" | "RestartMode" => "keepd has restart, success-exit and no-restart-exit",
        "TimeoutAbortSec"
        | "RuntimeMaxSec"
        | "RuntimeRandomizedExtraSec"
        | "TimeoutStartFailureMode"
        | "TimeoutStopFailureMode" => "keepd limits the time of a stop only",
        "SendSIGHUP" | "SendSIGKILL" | "FinalKillSignal" | "WatchdogSignal" | "RestartKillSignal"
        | "ReloadSignal" => "a stop is stop-command, stop-signal and, after stop-timeout, SIGKILL",
        "OOMPolicy" | "ManagedOOMSwap" | "ManagedOOMMemoryPressure" | "ManagedOOMPreference" => {
            "keepd leaves that to the kernel"
        }
        "Slice" | "Delegate" | "DelegateSubgroup" | "DisableControllers" => {
            "each run has a cgroup of its own, which keepd makes"
        }
        "PassEnvironment" | "UnsetEnvironment" => "nothing of keepd's own environment is passed on",
        "PAMName" | "UtmpIdentifier" | "UtmpMode" | "KeyringMode" => "keepd opens no session of a user",
        "RootDirectory" | "RootImage" | "RootEphemeral" | "MountAPIVFS" => {
            "keepd has no root folders of services"
        }
        "CacheDirectory" | "LogsDirectory" | "ConfigurationDirectory" => {
            "it is to be made for its user before it is started"
        }
        "RuntimeDirectoryMode"
        | "StateDirectoryMode"
        | "CacheDirectoryMode"
        | "LogsDirectoryMode"
        | "ConfigurationDirectoryMode"
        | "RuntimeDirectoryPreserve" => "keepd has no such setting for folders",
        "SetCredential" | "LoadCredentialEncrypted" | "SetCredentialEncrypted" | "ImportCredential" => {
            "keepd takes a credential from a file that is named in full"
        }
        _ if begins(&["Condition", "Assert"]) => "keepd starts what is configured, on whatever host",
        _ if begins(&["Syslog", "Log", "TTY", "StandardInput"]) => {
            "keepd keeps the output in a log of its own"
        }
        _ if begins(&[
            "JobTimeout",
            "JobRunning",
            "StartLimitAction",
            "FailureAction",
            "SuccessAction",
            "Reboot",
        ]) =>
        {
            "keepd acts on services, not on the host"
        }
        _ if begins(&[
            "CPUScheduling",
            "IOScheduling",
            "NUMA",
            "TimerSlack",
            "CPUShares",
            "CPUAccounting",
        ]) || begins(&[
            "Memory",
            "CPU",
            "IO",
            "BlockIO",
            "Tasks",
            "StartupCPU",
            "StartupIO",
            "AllowedCPUs",
        ]) =>
        {
            "keepd has no such limit"
        }
        _ if begins(&[
            "Protect",
            "Private",
            "Restrict",
            "SystemCall",
            "Lock",
            "IPAddress",
            "Device",
            "Bind",
        ]) || begins(&[
            "MemoryDeny",
            "RemoveIPC",
            "Inaccessible",
            "ReadOnly",
            "NoExec",
            "Exec",
            "Temporary",
        ]) || begins(&[
            "ProcSubset",
            "MountFlags",
            "SecureBits",
            "SELinux",
            "AppArmor",
            "Smack",
            "Personality",
        ]) =>
        {
            "keepd's sandbox has no such part"
        }
        _ => "keepd has no such setting",
    }
}
