//! Writes what a package holds besides the programs and that follows from their code: the man pages keepd(8),
//! keepctl(1) and keepd.toml(5), and the completions of bash, zsh and fish.
//!
//!     cargo run --example pages -- FOLDER YYYY-MM-DD
//!
//! Options and commands are taken from the command lines themselves, all that is written from `docs/` and
//! `packaging/man/`. It fails if a key of the configuration is missing in keepd.toml(5).

mod roff;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use keepd::{config, ctl, daemon};
use roff::{escaped, from_markdown};
use std::{error::Error, fs, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the packages install the rest of the documentation.
const DOCS: &str = "/usr/share/doc/keepd/";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, date] = args.as_slice() else {
        return Err("usage: pages FOLDER YYYY-MM-DD".into());
    };
    let folder = Path::new(folder);
    fs::create_dir_all(folder)?;
    let (mut keepd, mut keepctl) = (daemon::args::Args::command(), ctl::command());
    keepd.build();
    keepctl.build();
    fs::write(folder.join("keepd.8"), tidy(&daemon_page(&keepd, date)?))?;
    fs::write(folder.join("keepctl.1"), tidy(&client_page(&keepctl, date)?))?;
    fs::write(folder.join("keepd.toml.5"), tidy(&configuration_page(date)?))?;
    for (shell, ours, theirs) in [
        (Shell::Bash, "keepd.bash", "keepctl.bash"),
        (Shell::Zsh, "_keepd", "_keepctl"),
        (Shell::Fish, "keepd.fish", "keepctl.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut daemon::args::Args::command(), "keepd", &mut script);
        fs::write(folder.join(ours), script)?;
        let mut script = Vec::new();
        ctl::completion_script(shell, &mut script)?;
        fs::write(folder.join(theirs), script)?;
    }
    Ok(())
}

fn daemon_page(command: &Command, date: &str) -> Result<String> {
    let man = Man::new(command.clone());
    let mut page = head("keepd", "8", "process supervisor", date);
    page += &section("SYNOPSIS", &part(|out| man.render_synopsis_section(out))?);
    let (about, more) = split(include_str!("../man/keepd.md"), "\n## ", "packaging/man/keepd.md")?;
    page += &section("DESCRIPTION", &from_markdown(about));
    page += &section("OPTIONS", &part(|out| man.render_options_section(out))?);
    page += &from_markdown(more);
    Ok(page
        + &see_also(
            &["keepctl(1)", "keepd.toml(5)", "systemd.service(5)"],
            &["configuration.md", "logs.md", "packaging.md"],
        ))
}

fn client_page(command: &Command, date: &str) -> Result<String> {
    let man = Man::new(command.clone());
    let mut page = head("keepctl", "1", "control keepd, the process supervisor", date);
    page += &section("SYNOPSIS", &part(|out| man.render_synopsis_section(out))?);
    let (about, more) = include_str!("../../docs/keepctl.md")
        .split_once("\n| command |")
        .ok_or("docs/keepctl.md: no table of commands")?;
    page += ".SH DESCRIPTION\n";
    page += &from_markdown(about);
    page += &section("OPTIONS", &part(|out| man.render_options_section(out))?);
    page += ".SH COMMANDS\n";
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        // What is global is told once, above.
        let everywhere = |a: &clap::Arg| a.is_global_set() || a.get_id() == "help";
        let own = sub.clone().mut_args(|a| if everywhere(&a) { a.hide(true) } else { a });
        let man = Man::new(own);
        page += &format!(".SS {}\n", escaped(sub.get_name()));
        page += &format!("{}.PP\n", part(|out| man.render_synopsis_section(out))?);
        page += &format!("{}\n", escaped(&sub.get_about().map(ToString::to_string).unwrap_or_default()));
        page += &part(|out| man.render_options_section(out))?;
    }
    page += &from_markdown(split(more, "\n## ", "docs/keepctl.md")?.1);
    Ok(page + &see_also(&["keepd(8)", "keepd.toml(5)"], &["api.md", "logs.md"]))
}

fn configuration_page(date: &str) -> Result<String> {
    let mut page = head("keepd.toml", "5", "configuration of keepd, the process supervisor", date);
    page += ".SH DESCRIPTION\n";
    page += &from_markdown(include_str!("../../docs/configuration.md"));
    page += &see_also(&["keepd(8)", "keepctl(1)"], &["logs.md", "examples/"]);
    let text = page.replace("\\-", "-");
    let told = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or(key);
        text.contains(&format!("\\fB{name}\\fR"))
            || text.contains(&format!("[{name}"))
            || text.contains(&format!(".{name}]"))
            || text.contains(&format!("{name} ="))
    };
    let missing: Vec<&str> = config::keys().into_iter().filter(|k| !told(k)).collect();
    if missing.is_empty() {
        Ok(page)
    } else {
        Err(format!("docs/configuration.md does not tell of {}", missing.join(", ")).into())
    }
}

/// `text` before and from `mark` on.
fn split<'a>(text: &'a str, mark: &str, file: &str) -> Result<(&'a str, &'a str)> {
    let at = text.find(mark).ok_or_else(|| format!("{file}: there is no {mark:?}"))?;
    Ok(text.split_at(at))
}

fn head(name: &str, section: &str, about: &str, date: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let upper = name.to_uppercase();
    format!(".TH {upper} {section} {date} \"keepd {version}\" \"keepd\"\n.SH NAME\n{name} \\- {about}\n")
}

/// What clap_mangen renders, without the heading that it chooses.
fn part(render: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> Result<String> {
    let mut out = Vec::new();
    render(&mut out)?;
    // The string that it uses for an apostrophe is defined in what is left out below.
    let text = String::from_utf8(out)?.replace("\\*(Aq", "\\(aq").replace(".br\n\n.br\n", ".sp\n");
    let lines =
        text.lines().filter(|l| !l.starts_with(".SH") && !l.starts_with(".ie ") && !l.starts_with(".el "));
    Ok(lines.map(|l| format!("{l}\n")).collect())
}

/// Without requests for a paragraph below a heading, where there is one.
fn tidy(page: &str) -> String {
    let mut out = String::new();
    let mut heading = false;
    for line in page.lines() {
        if !(heading && line == ".PP") {
            out += line;
            out += "\n";
        }
        heading = line.starts_with(".SH") || line.starts_with(".SS");
    }
    out
}

fn section(title: &str, text: &str) -> String {
    format!(".SH {title}\n{text}")
}

fn see_also(pages: &[&str], files: &[&str]) -> String {
    let bold =
        |page: &&str| page.split_once('(').map(|(n, s)| format!("\\fB{n}\\fR({s}")).unwrap_or_default();
    let pages: Vec<String> = pages.iter().map(bold).collect();
    let files: Vec<String> = files.iter().map(|f| format!("{DOCS}{f}")).collect();
    format!(".SH SEE ALSO\n{}\n.PP\n{}\n", pages.join(", "), files.join(", "))
}
