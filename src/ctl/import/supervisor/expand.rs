//! supervisord's `%(name)s` in values. What only keepd knows at a start, the number of a process and the host's name,
//! becomes a mark that is written as `${…}` in the end.

use super::super::text::{HOST, INSTANCE};

/// What the names stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// `here`, `program_name`, `group_name`, `numprocs`, `ENV_X`.
    pub(super) known: Vec<(String, String)>,
    /// The number of this process, where each is a service of its own; else keepd counts.
    pub(super) process: Option<u64>,
}

impl Names {
    /// The text with everything put in. The error is a clause.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let inner = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
            let Some((name, after)) = inner else {
                return Err("a % in it begins neither %(…)s nor %%".into());
            };
            let Some(end) = after.find(['s', 'd']) else {
                return Err(format!("%({name}) has no s or d behind it"));
            };
            out.push_str(&self.value(name, &after[..end])?);
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str, form: &str) -> Result<String, String> {
        if name == "host_node_name" {
            return Ok(HOST.into());
        }
        if name == "process_num" {
            let Some(number) = self.process else { return Ok(INSTANCE.into()) };
            let width = form.trim_start_matches('0').parse().unwrap_or(0);
            return Ok(if form.starts_with('0') {
                format!("{number:0width$}")
            } else {
                format!("{number:width$}")
            });
        }
        match self.known.iter().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(match name.strip_prefix("ENV_") {
                Some(variable) => {
                    format!(
                        "{variable} is of the environment of supervisord: give it with --env {variable}=…"
                    )
                }
                None => format!("there is no %({name})s here"),
            }),
        }
    }
}

/// Whether the number of a process is written in a form that keepd's `${instance}` cannot take, as `%(process_num)02d`.
pub(super) fn padded(text: &str) -> bool {
    text.match_indices("%(process_num)")
        .any(|(at, m)| text[at + m.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in() {
        let known = vec![("here".into(), "/etc".into()), ("ENV_A".into(), "1".into())];
        let mut names = Names { known, process: None };
        assert_eq!(names.expand("%(here)s/x 100%% %(ENV_A)s"), Ok("/etc/x 100% 1".into()));
        assert_eq!(names.expand("w_%(process_num)d@%(host_node_name)s"), Ok(format!("w_{INSTANCE}@{HOST}")));
        names.process = Some(7);
        assert_eq!(names.expand("w_%(process_num)02d"), Ok("w_07".into()));
        for (bad, says) in [
            ("50%", "begins neither"),
            ("%(ENV_B)s", "--env B=…"),
            ("%(x)s", "no %(x)s"),
            ("%(here)", "no s or d"),
        ] {
            assert!(names.expand(bad).unwrap_err().contains(says), "{bad}");
        }
        assert!(padded("a%(process_num)02d") && !padded("a%(process_num)d%(process_num)s"));
    }
}
