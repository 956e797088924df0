//! How often a hook is called: the first event of a service and kind at once, those that follow within a minute
//! together. Pure: time is an argument.

use crate::{
    machine::Time,
    plan::Millis,
    wire::{Event, Folded},
};
use std::collections::BTreeMap;

/// How long events of one service and kind are held back after one was let through.
pub(super) const WINDOW: Millis = Millis::secs(60);

/// What is held back for one hook: at most one event for each service and kind.
#[derive(Debug, Default)]
pub(super) struct Folder {
    open: BTreeMap<(Option<String>, String), Window>,
}

#[derive(Debug)]
struct Window {
    until: Time,
    /// The newest that was held back, and how many came before it.
    held: Option<(Event, u64)>,
}

impl Folder {
    /// Takes an event; gives it back where it is to be delivered now.
    pub(super) fn offer(&mut self, now: Time, event: Event) -> Option<Event> {
        let key = (event.service.clone(), event.kind.clone());
        match self.open.get_mut(&key) {
            Some(window) => {
                let before = window.held.take().map_or(0, |(_, before)| before + 1);
                window.held = Some((event, before));
                None
            }
            None => {
                self.open.insert(key, Window { until: now + WINDOW, held: None });
                Some(event)
            }
        }
    }

    /// What is to be delivered because a window has ended; it says what it stands for.
    pub(super) fn due(&mut self, now: Time) -> Vec<Event> {
        let mut out = Vec::new();
        self.open.retain(|_, window| {
            if window.until > now {
                return true;
            }
            let Some((mut event, more)) = window.held.take() else { return false };
            if more > 0 {
                event.message.push_str(&format!(" ({more} more in {WINDOW})"));
                event.folded = Some(Folded { more, within_ms: WINDOW.0 });
            }
            out.push(event);
            window.until = now + WINDOW;
            true
        });
        out.sort_by_key(|e| e.id);
        out
    }

    /// When [`Folder::due`] is to be asked.
    pub(super) fn deadline(&self) -> Option<Time> {
        // Of empty windows too, so that they do not stay; that is one waking after the last event.
        self.open.values().map(|w| w.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, service: &str, kind: &str) -> Event {
        let message = format!("{service} {id}");
        Event { id, service: Some(service.into()), kind: kind.into(), message, ..Event::default() }
    }

    #[test]
    fn a_service_that_flaps_is_told_once_and_then_once_a_minute() {
        let mut f = Folder::default();
        assert_eq!(f.offer(Time(0), event(1, "web", "exit")).unwrap().id, 1);
        for id in 2..=7 {
            assert_eq!(f.offer(Time(id * 1000), event(id, "web", "exit")), None);
        }
        assert_eq!((f.deadline(), f.due(Time(59_999))), (Some(Time(60_000)), vec![]));
        let due = f.due(Time(60_000));
        assert_eq!((due.len(), due[0].id), (1, 7));
        assert_eq!(due[0].folded, Some(Folded { more: 5, within_ms: 60_000 }));
        assert_eq!(due[0].message, "web 7 (5 more in 1m)");
        // It is still flapping: the next minute has begun.
        assert_eq!(f.offer(Time(61_000), event(8, "web", "exit")), None);
        let due = f.due(Time(120_000));
        assert_eq!((due[0].id, due[0].folded, due[0].message.as_str()), (8, None, "web 8"));
        // A quiet minute forgets it.
        assert_eq!((f.due(Time(180_000)), f.deadline()), (vec![], None));
        assert!(f.offer(Time(180_001), event(9, "web", "exit")).is_some());
    }

    #[test]
    fn others_and_other_kinds_are_not_held_back() {
        let mut f = Folder::default();
        assert!(f.offer(Time(0), event(1, "web", "exit")).is_some());
        assert!(f.offer(Time(0), event(2, "db", "exit")).is_some());
        assert!(f.offer(Time(0), event(3, "web", "failed")).is_some());
        assert!(f.offer(Time(0), Event { service: None, ..event(4, "", "exit") }).is_some());
        assert_eq!(f.open.len(), 4);
    }
}
