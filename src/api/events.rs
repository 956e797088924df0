//! The event stream: Server-Sent Events with the numbers of the events as ids. A reader is a position in the
//! manager's log of events; one that falls behind what is kept is told so and goes on with the oldest.

use crate::{manager::events::EventLog, wire};
use bytes::Bytes;
use std::{fmt::Write, io, sync::Arc};
use tokio::sync::mpsc;

/// How many events go into one chunk at most.
const BATCH: usize = 64;

/// The events after number `after`, and those to come if `follow`. Must be called within the runtime.
pub(super) fn open(log: Arc<EventLog>, after: u64, follow: bool) -> mpsc::Receiver<io::Result<Bytes>> {
    let (out, chunks) = mpsc::channel(1);
    tokio::spawn(pump(log, after, follow, out));
    chunks
}

async fn pump(log: Arc<EventLog>, after: u64, follow: bool, out: mpsc::Sender<io::Result<Bytes>>) {
    let mut changed = log.changed();
    let mut at = after;
    if at > log.last() {
        // Numbers of another life of the daemon: all that is kept is new to this reader.
        at = 0;
    }
    loop {
        changed.mark_unchanged();
        let batch = log.after(at, BATCH);
        let Some(newest) = batch.last() else {
            if !follow {
                return;
            }
            tokio::select! {
                more = changed.changed() => if more.is_err() { return },
                () = out.closed() => return,
            }
            continue;
        };
        let text = frames(at, &batch);
        at = newest.id;
        if out.send(Ok(text.into())).await.is_err() {
            return;
        }
    }
}

/// The events as they are sent to a reader that has seen number `after`.
fn frames(after: u64, batch: &[wire::Event]) -> String {
    let mut text = String::new();
    let first = batch.first().map_or(0, |e| e.id);
    // Number 0 was never an event: it stands for "all there is".
    if after > 0 && first > after + 1 {
        let _ = write!(text, "event: lost\ndata: {{\"after\":{after},\"next\":{first}}}\n\n");
    }
    for event in batch {
        if let Ok(data) = serde_json::to_string(event) {
            let _ = write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::events::KEPT;

    fn event(id: u64) -> wire::Event {
        wire::Event { id, kind: "state".into(), message: "a\nb".into(), ..wire::Event::default() }
    }

    #[test]
    fn an_event_is_three_lines_whatever_it_says() {
        let text = frames(6, &[event(7)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["id: 7", "event: state"]);
        let data: wire::Event = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((data, lines.len()), (event(7), 4));
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_that_it_missed_some() {
        let log = Arc::new(EventLog::new(1));
        for _ in 0..KEPT + 10 {
            log.push(event(0));
        }
        let mut all = open(log.clone(), 3, false);
        let first = String::from_utf8(all.recv().await.unwrap().unwrap().into()).unwrap();
        assert!(first.starts_with("event: lost\ndata: {\"after\":3,\"next\":11}\n\nid: 11\n"), "{first}");
        let mut seen = first.matches("id: ").count();
        while let Some(chunk) = all.recv().await {
            let text = String::from_utf8(chunk.unwrap().into()).unwrap();
            assert!(!text.contains("lost"));
            seen += text.matches("id: ").count();
        }
        assert_eq!(seen, KEPT);
    }

    #[tokio::test]
    async fn numbers_of_another_life_begin_with_all_that_is_kept() {
        let log = Arc::new(EventLog::new(1));
        log.push(event(0));
        let chunk = open(log, 4711, false).recv().await.unwrap().unwrap();
        assert!(chunk.starts_with(b"id: 1\n"));
    }

    #[tokio::test]
    async fn what_happens_later_is_sent_then() {
        let log = Arc::new(EventLog::new(1));
        log.push(event(0));
        let mut chunks = open(log.clone(), log.last(), true);
        assert!(chunks.try_recv().is_err());
        log.push(event(0));
        assert!(chunks.recv().await.unwrap().unwrap().starts_with(b"id: 2\n"));
    }
}
