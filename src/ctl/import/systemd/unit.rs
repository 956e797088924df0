//! A unit file as systemd reads it: sections, assignments, continuation lines, and empty assignments, which take back
//! what was said before. `systemctl cat` prints such text too. Nothing is interpreted here.

/// All that one key was given, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    /// Not empty.
    pub(super) values: Vec<String>,
}

impl Entry {
    /// Of a key that has one value.
    pub(super) fn last(&self) -> &str {
        self.values.last().map_or("", String::as_str)
    }

    /// Words of all values of a list.
    pub(super) fn words(&self) -> Vec<String> {
        self.values.iter().flat_map(|v| v.split_whitespace()).map(str::to_owned).collect()
    }
}

/// Keys in the order in which they first came.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) entries: Vec<Entry>,
}

impl Unit {
    /// Reads one more file of the unit. The error names the line.
    pub(super) fn read(&mut self, text: &str) -> Result<(), String> {
        let mut section = String::new();
        let mut whole = String::new();
        for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
            let trimmed = line.trim();
            // Comments may stand between the lines of one value.
            if trimmed.starts_with(['#', ';']) {
                continue;
            }
            match line.strip_suffix('\\') {
                Some(more) => {
                    whole.push_str(more);
                    whole.push(' ');
                    continue;
                }
                None => whole.push_str(line),
            }
            let line = std::mem::take(&mut whole);
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(format!("line {number} is neither KEY=VALUE nor [SECTION]"));
            };
            if section.is_empty() {
                return Err(format!("line {number} stands in no [SECTION]"));
            }
            self.assign(&section, key.trim_end(), value.trim());
        }
        Ok(())
    }

    fn assign(&mut self, section: &str, key: &str, value: &str) {
        let known = self.entries.iter().position(|e| e.section == section && e.key == key);
        // With these alone nothing is a statement: no capability at all.
        let means_none = matches!(key, "CapabilityBoundingSet" | "AmbientCapabilities");
        match (known, value) {
            (Some(at), "") if means_none => self.entries[at].values = vec![String::new()],
            (Some(at), "") => drop(self.entries.remove(at)),
            (None, "") if !means_none => {}
            (Some(at), _) => self.entries[at].values.push(value.to_owned()),
            (None, _) => {
                let (section, key, values) = (section.to_owned(), key.to_owned(), vec![value.to_owned()]);
                self.entries.push(Entry { section, key, values });
            }
        }
    }

    /// The last value of a key, of `[Service]` or `[Unit]`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|e| e.key == key && matches!(e.section.as_str(), "Service" | "Unit"))
            .map(Entry::last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_systemd_reads_them() {
        let mut unit = Unit::default();
        unit.read(
            "# c\n[Unit]\nAfter=a b\nAfter = c\n\
            [Service]\nExecStart=/bin/a \\\n# between\n  --more\nUser=x\nUser=y\nUMask=\n",
        )
        .unwrap();
        assert_eq!(unit.entries[0].words(), ["a", "b", "c"]);
        assert_eq!(unit.get("ExecStart"), Some("/bin/a    --more"));
        assert_eq!((unit.get("User"), unit.get("UMask")), (Some("y"), None));
        unit.read("# /etc/x.d/o.conf\n[Service]\nExecStart=\nExecStart=/bin/b\n").unwrap();
        assert_eq!(unit.entries.last().unwrap().values, ["/bin/b"]);
        assert_eq!(unit.read("x").unwrap_err(), "line 1 is neither KEY=VALUE nor [SECTION]");
        assert_eq!(unit.read("a=b").unwrap_err(), "line 1 stands in no [SECTION]");
    }
}
