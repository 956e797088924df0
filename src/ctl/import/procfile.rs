//! Procfiles as foreman and honcho run them: each line by a shell, in the Procfile's folder, with `.env` beside it and
//! a `PORT` that is 100 more for each line.

use super::{
    batch::Batch,
    draft::{Draft, Setting},
    file_name,
    text::literal,
};
use std::path::Path;

/// foreman's first port, and the distance to the next process.
const PORT: (i64, i64) = (5000, 100);

/// Adds a service for each line. The error is a clause.
pub(super) fn import(path: &Path, text: &str, setting: &Setting, batch: &mut Batch) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let dot_env = folder.join(".env");
    let variables = std::fs::read_to_string(&dot_env).ok();
    let own_port = variables.iter().flat_map(|v| v.lines()).any(|l| l.trim().starts_with("PORT="));
    let mut index = 0;
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let word = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        let Some((name, command)) =
            line.split_once(':').filter(|(name, c)| word(name) && !c.trim().is_empty())
        else {
            return Err(format!("line {number} is not NAME: COMMAND"));
        };
        let mut draft = Draft::new(name, format!("{name} of {}", file_name(path)), setting);
        let shell = vec!["/bin/sh".into(), "-c".into(), literal(command.trim())];
        let outcome = draft.set("command", shell);
        draft.key(name.into(), outcome);
        draft.set("directory", literal(&folder.display().to_string()))?;
        if variables.is_some() {
            draft.set("env-files", vec![literal(&dot_env.display().to_string())])?;
        }
        if own_port {
            draft
                .remarks
                .lost("PORT of .env", "it is the same for all processes here; foreman adds 100 for each");
        } else {
            draft.set("port", PORT.0 + PORT.1 * index)?;
        }
        // foreman and honcho end everything as soon as one process ends.
        draft.set("restart", "on-failure")?;
        if name == "release" {
            draft.set("autostart", false)?;
            draft.set("restart", "never")?;
            draft
                .remarks
                .note("release: it is run once before a new version; keepctl start release does that");
        }
        index += 1;
        batch.drafts.push(draft);
    }
    if index > 0 {
        batch
            .remarks
            .note("how many of each are run is said to foreman on its command line: `instances` here");
    }
    Ok(())
}
