//! PM2's ecosystem files, as JSON. `ecosystem.config.js` is a program: it is not run, and the error says what to do.

mod app;

use super::{batch::Batch, draft::Setting, file_name};
use serde_json::Value as Json;
use std::path::Path;

/// Adds a service for each application. The error is a clause.
pub(super) fn import(path: &Path, text: &str, setting: &Setting, batch: &mut Batch) -> Result<(), String> {
    let name = file_name(path);
    let kind = name.rsplit('.').next().unwrap_or("");
    if matches!(kind, "js" | "cjs" | "mjs" | "ts") {
        return Err(format!(
            "it is a program, which is not run here; its JSON comes from\n  node -p \
                 'JSON.stringify(require(\"./{name}\"))' > ecosystem.json"
        ));
    }
    if matches!(kind, "yml" | "yaml") {
        return Err("only JSON is read; convert it first".into());
    }
    let root: Json = serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))?;
    let apps = match &root {
        Json::Array(apps) => apps.clone(),
        Json::Object(file) => match file.get("apps").or_else(|| file.get("pm2")) {
            Some(Json::Array(apps)) => apps.clone(),
            Some(app @ Json::Object(_)) => vec![app.clone()],
            Some(_) => return Err("`apps` is neither a list nor an object".into()),
            None => vec![root.clone()],
        },
        _ => return Err("it is neither a list of applications nor an object with `apps`".into()),
    };
    if let Json::Object(file) = &root
        && (file.contains_key("apps") || file.contains_key("pm2"))
    {
        for key in file.keys().filter(|k| !matches!(k.as_str(), "apps" | "pm2")) {
            let why = if key == "deploy" { "keepd deploys nothing" } else { "PM2 does not know it either" };
            batch.remarks.lost(key.as_str(), why);
        }
    }
    for app in &apps {
        let Json::Object(app) = app else { return Err("an application is no object".into()) };
        batch.drafts.push(app::application(app, path, setting)?);
    }
    Ok(())
}
