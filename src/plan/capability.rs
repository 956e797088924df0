//! Capabilities by name and number, as capabilities(7) has them. Sets of them, and what can be read as one.

use serde::{Deserialize, Serialize};

/// By the kernel's number.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(
    /// A bit per capability, by the kernel's number.
    pub u64,
);

impl Capabilities {
    /// CAP_SETUID: with it, any user id can be taken on.
    pub const SETUID: Capabilities = Capabilities(1 << 7);
    /// CAP_SYS_ADMIN: undoes mounts, among much else.
    pub const SYS_ADMIN: Capabilities = Capabilities(1 << 21);
    /// CAP_MKNOD and CAP_SYS_RAWIO: the ways to a device that is not in /dev.
    pub const DEVICES: Capabilities = Capabilities(1 << 27 | 1 << 17);

    /// The one of this name; `CAP_` and the case of letters do not matter.
    pub fn named(name: &str) -> Option<Capabilities> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|n| &n[4..] == bare).map(|bit| Capabilities(1 << bit))
    }

    /// Both together.
    pub fn and(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & !other.0)
    }

    /// No capability at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if any of `other` is in it.
    pub fn meets(self, other: Capabilities) -> bool {
        self.0 & other.0 != 0
    }

    /// The numbers of those in it, in order.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |bit| self.0 >> bit & 1 == 1)
    }

    /// The names of those in it, in the order of their numbers.
    pub fn names(self) -> Vec<String> {
        let name = |bit: u32| NAMES.get(bit as usize).map_or_else(|| format!("CAP_{bit}"), |n| (*n).into());
        self.numbers().map(name).collect()
    }

    /// All names there are.
    pub fn known() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_kernels() {
        for (name, bit) in
            [("CAP_CHOWN", 0), ("cap_net_bind_service", 10), ("sys_admin", 21), ("CAP_BPF", 39)]
        {
            assert_eq!(Capabilities::named(name), Some(Capabilities(1 << bit)), "{name}");
        }
        for (bit, name) in NAMES.into_iter().enumerate() {
            assert_eq!(Capabilities::named(name), Some(Capabilities(1 << bit)));
            assert_eq!(Capabilities(1 << bit).names(), [name]);
        }
        for name in ["", "CAP_", "CAP_NONE", "CAP_CAP_CHOWN", "all"] {
            assert_eq!(Capabilities::named(name), None, "{name}");
        }
        assert_eq!(Capabilities::DEVICES.names(), ["CAP_SYS_RAWIO", "CAP_MKNOD"]);
        assert_eq!(Capabilities::SETUID.names(), ["CAP_SETUID"]);
        assert_eq!(Capabilities::SYS_ADMIN.names(), ["CAP_SYS_ADMIN"]);
    }
}
