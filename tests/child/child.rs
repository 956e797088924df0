//! The program that tests run as a service: it misbehaves on demand and reports what it was given.
//!
//! The arguments are verbs with their operands, done in order; after the last one it exits with 0:
//!
//! | verb | does |
//! |---|---|
//! | `exit N` | exits with that status |
//! | `exit-after-ms MS N` | waits, then exits |
//! | `sleep` | waits until it is killed |
//! | `sleep-ms MS` | waits, then goes on |
//! | `wait-signal NAME` | goes on when that signal comes (`TERM`, `HUP`, …), which does not end it before |
//! | `ignore-term` | ignores SIGTERM and goes on |
//! | `crash NAME` | ends by that signal |
//! | `stop-self` | stops itself (SIGSTOP), goes on when continued |
//! | `fork-daemon FILE` | leaves a daemon behind (two forks, own session) that writes its pid there; goes on |
//! | `fork-child FILE` | leaves a child that writes its pid there and waits; goes on |
//! | `leader-exits` | leaves a child that waits, and exits with 0 |
//! | `fork-bomb N` | leaves a chain of N daemons, each the child of a dead parent; goes on |
//! | `print TEXT`, `eprint TEXT` | a line on stdout, on stderr |
//! | `print-raw TEXT` | without the line's end |
//! | `lines N PREFIX` | `PREFIX 1` … `PREFIX N` |
//! | `flood BYTES` | so many bytes on stdout, in lines of 64 |
//! | `numbered MODE RATE FILE` | lines as in `numbered.rs`, RATE bytes a second, until SIGTERM; counts go to FILE |
//! | `report FILE` | what it was given, as JSON (see `report.rs`) |
//! | `try NAME` | a line `NAME ok` or `NAME EPERM` about a call in `attempt.rs` |
//! | `try-write PLACE` | the same about writing to a file, or a new one in a folder |
//! | `touch FILE` | creates a file |
//! | `stamp FILE` | appends a line: its pid |
//! | `append FILE TEXT` | appends a line |
//! | `fail-if-exists FILE N` | exits with that status if the file is there |
//! | `fail-unless-exists FILE N` | exits with that status if it is not |

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "raw system calls, some of them wrong by intent"
)]

mod attempt;
mod numbered;
mod report;

use keepd::sys::{
    poll::{Interest, Poll},
    process::{self, SingleThread},
    signal::{self, Inbox},
};
use nix::sys::signal::{Signal, raise};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    str::FromStr,
};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let status = match run(&args) {
        Ok(status) => status,
        Err(e) => {
            eprintln!("child: {e}");
            99
        }
    };
    #[allow(clippy::disallowed_methods)]
    std::process::exit(status);
}

fn run(args: &[String]) -> Result<i32, Box<dyn std::error::Error>> {
    let mut waited = Vec::new();
    for pair in args.windows(2).filter(|p| p[0] == "wait-signal") {
        waited.push(number(&pair[1])?);
    }
    // Only where wanted, so that a report shows no descriptor of its own.
    let inbox = (!waited.is_empty()).then(|| Inbox::new(&waited)).transpose()?;
    let mut args = args.iter();
    while let Some(verb) = args.next() {
        let mut next = || args.next().map(String::as_str).ok_or_else(|| format!("{verb} needs an operand"));
        match verb.as_str() {
            "exit" => return Ok(next()?.parse()?),
            "exit-after-ms" => {
                pause_ms(next()?.parse()?)?;
                return Ok(next()?.parse()?);
            }
            "fail-if-exists" | "fail-unless-exists" => {
                let there = std::path::Path::new(next()?).exists();
                let status = next()?.parse()?;
                if there == (verb == "fail-if-exists") {
                    return Ok(status);
                }
            }
            "leader-exits" => {
                leave_child(None)?;
                return Ok(0);
            }
            "sleep" => sleep()?,
            "sleep-ms" => pause_ms(next()?.parse()?)?,
            "wait-signal" => wait_for(inbox.as_ref(), number(next()?)?)?,
            "ignore-term" => signal::ignore(signal::SIGTERM),
            "crash" => {
                // Not as the runtime would have it, which catches some and ignores others.
                signal::reset_all();
                raise(Signal::try_from(number(next()?)?)?)?;
            }
            "stop-self" => raise(Signal::SIGSTOP)?,
            "fork-daemon" => leave_daemon(next()?)?,
            "fork-child" => leave_child(Some(next()?))?,
            "fork-bomb" => leave_chain(next()?.parse()?)?,
            "print" => out(&format!("{}\n", next()?))?,
            "print-raw" => out(next()?)?,
            "eprint" => writeln!(io::stderr(), "{}", next()?)?,
            "lines" => lines(next()?.parse()?, next()?)?,
            "flood" => flood(next()?.parse()?)?,
            "numbered" => numbered(next()?, next()?.parse()?, next()?)?,
            "report" => report::write(next()?)?,
            "try" => {
                let name = next()?;
                out(&format!("{name} {}\n", attempt::attempt(name)?))?;
            }
            "try-write" => {
                let place = next()?;
                out(&format!("{place} {}\n", attempt::write_in(place)))?;
            }
            "touch" => drop(File::create(next()?)?),
            "stamp" => append(next()?, &process::pid().to_string())?,
            "append" => {
                let file = next()?;
                append(file, next()?)?;
            }
            other => return Err(format!("unknown verb {other}").into()),
        }
    }
    Ok(0)
}

fn number(name: &str) -> Result<i32, Box<dyn std::error::Error>> {
    Ok(Signal::from_str(&format!("SIG{}", name.trim_start_matches("SIG")))? as i32)
}

fn out(text: &str) -> Done {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn lines(n: u64, prefix: &str) -> Done {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    for i in 1..=n {
        writeln!(stdout, "{prefix} {i}")?;
    }
    Ok(stdout.flush()?)
}

fn numbered(mode: &str, rate: u64, file: &str) -> Done {
    let mode = numbered::Mode::ALL.into_iter().find(|m| m.word() == mode).ok_or("no such mode")?;
    let inbox = Inbox::new(&[signal::SIGTERM])?;
    let mut poll = Poll::new(1)?;
    poll.add(inbox.as_fd(), Interest::Read, 0)?;
    let (mut written, mut counts, block) = (0, [0; 2], if mode == numbered::Mode::Block { 200 } else { 1 });
    while inbox.next() != Some(signal::SIGTERM) {
        let begun = written;
        // As much as fifty milliseconds allow, then a pause.
        while written - begun < rate / 20 {
            let which = usize::from(mode == numbered::Mode::Both && counts[0] > counts[1]);
            let text: String = (0..block).map(|n| numbered::line(mode, counts[which] + n)).collect();
            match which {
                0 => out(&text)?,
                _ => io::stderr().write_all(text.as_bytes())?,
            }
            counts[which] += block;
            written += text.len() as u64;
        }
        poll.wait(Some((written - begun) * 1000 / rate))?;
    }
    Ok(std::fs::write(file, format!("{}\n{}\n", counts[0], counts[1]))?)
}

fn flood(bytes: usize) -> Done {
    let line = format!("{}\n", "x".repeat(63));
    let mut stdout = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut left = bytes;
    while left > 0 {
        let n = left.min(line.len());
        stdout.write_all(&line.as_bytes()[line.len() - n..])?;
        left -= n;
    }
    Ok(stdout.flush()?)
}

fn append(file: &str, text: &str) -> Done {
    // One write, so that lines of several processes do not mix.
    let line = format!("{text}\n");
    Ok(OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())?)
}

fn sleep() -> Done {
    loop {
        nix::unistd::pause();
    }
}

fn pause_ms(ms: u64) -> Done {
    Poll::new(1)?.wait(Some(ms))?;
    Ok(())
}

fn wait_for(inbox: Option<&Inbox>, wanted: i32) -> Done {
    let inbox = inbox.ok_or("no signal is waited for")?;
    let mut poll = Poll::new(1)?;
    poll.add(inbox.as_fd(), Interest::Read, 0)?;
    loop {
        if inbox.next() == Some(wanted) {
            return Ok(());
        }
        poll.wait(None)?;
    }
}

fn proof() -> Result<SingleThread, &'static str> {
    SingleThread::check().ok_or("there are other threads")
}

fn leave_child(file: Option<&str>) -> Done {
    process::spawn(proof()?, None, || {
        let said = file.map(write_pid);
        i32::from(said.is_some_and(|s| s.is_err()) || sleep().is_err())
    })?;
    Ok(())
}

fn leave_daemon(file: &str) -> Done {
    let proof = proof()?;
    let middle = process::spawn(proof, None, || {
        let _ = process::setsid();
        i32::from(
            process::spawn(proof, None, || i32::from(write_pid(file).is_err() || sleep().is_err())).is_err(),
        )
    })?;
    keepd::sys::pidfd::wait_end(middle.pidfd.as_fd(), 10_000)?;
    Ok(())
}

fn leave_chain(n: u32) -> Done {
    let proof = proof()?;
    process::spawn(proof, None, || {
        let _ = process::setsid();
        let next = if n > 1 { leave_chain(n - 1) } else { sleep() };
        i32::from(next.is_err())
    })?;
    Ok(())
}

/// Whole or not at all: a reader that sees the file sees the number.
fn write_pid(file: &str) -> Done {
    let draft = format!("{file}.{}", process::pid());
    std::fs::write(&draft, process::pid().to_string())?;
    Ok(std::fs::rename(draft, file)?)
}
