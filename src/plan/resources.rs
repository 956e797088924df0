//! What a service may use of the host, and when what it uses is too much. Values only: who writes them where is the
//! keeper's business, and what follows a reading is the machine's.

use super::{Millis, unit::size_text};
use serde::{Deserialize, Serialize};

/// The part of the `resources` table that its control group holds it to. What is `None` is not limited, or has the
/// kernel's usual weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes at which the kernel kills it, all of it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<u64>,
    /// Bytes from which the kernel slows it down and takes memory back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<u64>,
    /// Percent of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_max: Option<u32>,
    /// 1 to 10000; 100 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// 1 to 10000; 100 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u32>,
}

/// One value as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As it is written in the configuration, without its table.
    pub key: &'static str,
    /// What has to be there for it.
    pub controller: &'static str,
    /// The control group's file.
    pub file: &'static str,
    pub value: String,
    /// It is asked for; otherwise it is what the kernel begins with.
    pub wanted: bool,
}

/// Microseconds over which `cpu-max` is measured out.
const CPU_PERIOD: u64 = 100_000;

impl Resources {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }

    /// Every value there is, in the order in which they are to be written: the lower bound of memory first.
    pub fn settings(&self) -> Vec<Setting> {
        let show = |n: Option<u64>| n.map_or_else(|| "max".to_owned(), |n| n.to_string());
        let weight = |n: Option<u32>| n.unwrap_or(100).to_string();
        let one = |key, controller, file, value, wanted| Setting { key, controller, file, value, wanted };
        let quota = self.cpu_max.map(|percent| u64::from(percent) * CPU_PERIOD / 100);
        let (high, max) = (self.memory_high, self.memory_max);
        let all = u8::from(max.is_some()).to_string();
        vec![
            one("memory-high", "memory", "memory.high", show(high), high.is_some()),
            one("memory-max", "memory", "memory.oom.group", all, max.is_some()),
            one("memory-max", "memory", "memory.max", show(max), max.is_some()),
            one("cpu-max", "cpu", "cpu.max", format!("{} {CPU_PERIOD}", show(quota)), quota.is_some()),
            one("cpu-weight", "cpu", "cpu.weight", weight(self.cpu_weight), self.cpu_weight.is_some()),
            one("pids-max", "pids", "pids.max", show(self.pids_max), self.pids_max.is_some()),
            one("io-weight", "io", "io.weight", weight(self.io_weight), self.io_weight.is_some()),
        ]
    }
}

/// The `watch` table: what is too much, for how long, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Bytes.
    pub memory: Option<u64>,
    /// Percent of one CPU.
    pub cpu: Option<u32>,
    /// How long without a break; more than nothing.
    pub lasting: Millis,
    pub action: WatchAction,
}

/// `watch.action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchAction {
    /// An orderly stop, then a start.
    Restart,
    /// People are told, nothing else.
    Alert,
}

/// What a watch looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meter {
    Memory,
    Cpu,
}

impl Watch {
    /// Completes "web used ...", as in "web used more than 400MiB of memory for 1m".
    pub fn excess(&self, meter: Meter) -> String {
        let what = match meter {
            Meter::Memory => format!("{} of memory", size_text(self.memory.unwrap_or(0))),
            Meter::Cpu => format!("{}% of a CPU", self.cpu.unwrap_or(0)),
        };
        format!("more than {what} for {}", self.lasting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_the_kernel_reads() {
        let all = Resources {
            memory_max: Some(64 << 20),
            memory_high: Some(48 << 20),
            cpu_max: Some(150),
            cpu_weight: Some(50),
            pids_max: Some(20),
            io_weight: Some(200),
        };
        let shown: Vec<_> = all.settings().into_iter().map(|s| format!("{} {}", s.file, s.value)).collect();
        let wanted = "memory.high 50331648, memory.oom.group 1, memory.max 67108864, cpu.max 150000 100000, \
                      cpu.weight 50, pids.max 20, io.weight 200";
        assert_eq!(shown.join(", "), wanted);
        assert!(all.settings().iter().all(|s| s.wanted));
    }

    #[test]
    fn what_is_not_asked_for_is_what_the_kernel_begins_with() {
        let shown: Vec<_> =
            Resources::default().settings().into_iter().map(|s| (s.value, s.wanted)).collect();
        let values = ["max", "0", "max", "max 100000", "100", "max", "100"];
        assert_eq!(shown, values.map(|v| (v.to_owned(), false)));
        assert!(Resources::default().is_empty());
    }

    #[test]
    fn an_excess_reads_as_it_was_written() {
        let watch = Watch {
            memory: Some(400 << 20),
            cpu: Some(90),
            lasting: Millis::secs(60),
            action: WatchAction::Restart,
        };
        assert_eq!(watch.excess(Meter::Memory), "more than 400MiB of memory for 1m");
        assert_eq!(watch.excess(Meter::Cpu), "more than 90% of a CPU for 1m");
    }
}
