//! The text that Prometheus and its kin read: the classic format (0.0.4), or OpenMetrics 1.0 where the caller asks for
//! it. They differ in how counters are announced and in the last line. It knows no metric.

use std::fmt::{Display, Write};

/// What a family's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, or begins again at 0. Its name ends in `_total`.
    Counter,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    open: bool,
    name: &'static str,
}

impl Exposition {
    /// `open`: OpenMetrics.
    pub(super) fn new(open: bool, capacity: usize) -> Exposition {
        Exposition { text: String::with_capacity(capacity), open, name: "" }
    }

    /// Which format a caller wants that accepts these types.
    pub(super) fn is_open(accept: &str) -> bool {
        accept.contains("application/openmetrics-text")
    }

    /// The type of the text.
    pub(super) fn content_type(open: bool) -> &'static str {
        match open {
            true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            false => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Begins a family: all samples until the next one are of it. `help` has neither line ends nor backslashes.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let (kind, announced) = match kind {
            Kind::Gauge => ("gauge", name),
            // OpenMetrics names the family without what its samples end in.
            Kind::Counter if self.open => ("counter", name.strip_suffix("_total").unwrap_or(name)),
            Kind::Counter => ("counter", name),
        };
        self.put(format_args!("# HELP {announced} {help}\n# TYPE {announced} {kind}\n"));
    }

    /// One value; `labels` is empty or `{key="value",…}`, in which keepd's names need no escapes.
    pub(super) fn sample(&mut self, labels: &str, value: impl Display) {
        let name = self.name;
        self.put(format_args!("{name}{labels} {value}\n"));
    }

    /// The text.
    pub(super) fn done(mut self) -> String {
        if self.open {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(open: bool) -> String {
        let mut out = Exposition::new(open, 0);
        out.family("keepd_x", Kind::Gauge, "A thing.");
        out.sample("", 1);
        out.family("keepd_cpu_seconds_total", Kind::Counter, "CPU time.");
        out.sample("{name=\"web\"}", 0.25);
        out.done()
    }

    #[test]
    fn counters_are_announced_as_each_format_wants_it() {
        let head = "# HELP keepd_x A thing.\n# TYPE keepd_x gauge\nkeepd_x 1\n";
        let sample = "keepd_cpu_seconds_total{name=\"web\"} 0.25\n";
        let classic = "# HELP keepd_cpu_seconds_total CPU time.\n# TYPE keepd_cpu_seconds_total counter\n";
        let open = "# HELP keepd_cpu_seconds CPU time.\n# TYPE keepd_cpu_seconds counter\n";
        assert_eq!(text(false), format!("{head}{classic}{sample}"));
        assert_eq!(text(true), format!("{head}{open}{sample}# EOF\n"));
    }

    #[test]
    fn the_format_is_the_caller_s_choice() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert!(Exposition::is_open(prometheus));
        assert!(!Exposition::is_open("*/*"));
    }
}
