//! supervisord's files as its own parser reads them: sections, continuation lines, and comments, which begin with `;`
//! or `#` at the beginning of a line or behind a blank. Nothing is interpreted here.

/// `[name]` and its keys; of a key that is written twice the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) keys: Vec<(String, String)>,
}

impl Section {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Sections in the order in which they come; one that comes twice is one. The error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    let mut current: Option<usize> = None;
    let mut key: Option<usize> = None;
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        let trimmed = before_comment(line).trim();
        if trimmed.is_empty() {
            continue;
        }
        if let (true, Some(section), Some(key)) = (line.starts_with([' ', '\t']), current, key) {
            let value = &mut sections[section].keys[key].1;
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        if let Some(name) =
            trimmed.strip_prefix('[').and_then(|t| t.split_once(']')).map(|(name, _)| name.trim())
        {
            current = Some(sections.iter().position(|s| s.name == name).unwrap_or(sections.len()));
            if current == Some(sections.len()) {
                sections.push(Section { name: name.into(), keys: Vec::new() });
            }
            key = None;
            continue;
        }
        let Some(section) = current else { return Err(format!("line {number} stands in no [section]")) };
        let Some((name, value)) = trimmed.split_once(['=', ':']) else {
            return Err(format!("line {number} is neither `key = value` nor [section]"));
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        let keys = &mut sections[section].keys;
        keys.retain(|(k, _)| *k != name);
        keys.push((name, value));
        key = Some(keys.len() - 1);
    }
    Ok(sections)
}

fn before_comment(line: &str) -> &str {
    let marks = line.match_indices([';', '#']).map(|(at, _)| at);
    let cut = marks.into_iter().find(|at| *at == 0 || line[..*at].ends_with([' ', '\t']));
    &line[..cut.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_supervisord_reads_them() {
        let text = "; c\n[program:a] ; x\ncommand = /bin/a -x ; y\n  --more;z ; w\n# \
            no\nUser: web\nuser=ann\n\n[b]\nx=#1\n[program:a]\ny=\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0].get("command"), Some("/bin/a -x\n--more;z"));
        assert_eq!((sections[0].get("user"), sections[0].get("y")), (Some("ann"), Some("")));
        assert_eq!(sections[1].get("x"), Some("#1"));
        assert_eq!(parse("x=1").unwrap_err(), "line 1 stands in no [section]");
        assert_eq!(parse("[a]\nword").unwrap_err(), "line 2 is neither `key = value` nor [section]");
    }
}
