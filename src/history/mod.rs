//! Which digest a tag had, and when: one history out of late, repeated and reordered evidence.
//!
//! What is kept are *sightings*: at this time the tag had this digest (or was gone). Periods are a pure
//! function of the set of sightings, so any order of arrival and any number of copies give one history.
//! Pure: no I/O, no clock; imports only `image`.

use jiff::{SignedDuration, Timestamp};

use crate::image::Digest;

/// How a sighting is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Known {
    /// The registry itself showed it.
    Observed,
    /// Only an event said so; the registry, when asked, showed something else.
    Reported,
}

impl Known {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Known::Observed => "observed",
            Known::Reported => "reported",
        }
    }
}

/// What made the daemon look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A sender's event.
    Event,
    /// A sweep over the registry, by schedule or by `audit`.
    Audit,
    /// A `check` on somebody's behalf.
    Check,
    /// A policy or platform set changed, or a waiting time ran out.
    PolicyChange,
}

impl Origin {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Event => "event",
            Origin::Audit => "audit",
            Origin::Check => "check",
            Origin::PolicyChange => "policy-change",
        }
    }
}

/// At `at`, the tag had `digest`, or was gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The digest; `None` when the tag was gone.
    pub digest: Option<Digest>,
    /// When: the sender's time for what an event told, clamped to when it was received; our own for a look.
    pub at: Timestamp,
    /// How it is known.
    pub known: Known,
    /// Whether this is the time of our own look at the registry rather than a sender's time.
    pub looked: bool,
    /// What made us look.
    pub origin: Origin,
    /// Who did it, where a sender said.
    pub actor: Option<String>,
}

/// What an event said of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The digest pushed; `None` when the tag was said to be taken away.
    pub digest: Option<Digest>,
    /// When, by the sender's clock.
    pub at: Timestamp,
    /// Who, where the sender said.
    pub actor: Option<String>,
}

/// What the registry showed of a tag when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The digest; `None` when the tag was not there.
    pub digest: Option<Digest>,
    /// When, by our clock.
    pub at: Timestamp,
}

/// A stretch of time during which the tag had one digest, or was gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// The digest; `None` while the tag was gone.
    pub digest: Option<Digest>,
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None` for the last one.
    pub to: Option<Timestamp>,
    /// Observed if any sighting in it was.
    pub known: Known,
    /// The origin of its first sighting.
    pub origin: Origin,
    /// The first actor named in it.
    pub actor: Option<String>,
}

/// Most sightings kept of one tag. A rolling tag moves daily for years; what a verdict needs is the first
/// period and the latest ones, so the middle is dropped first.
pub const SIGHTINGS_MAX: usize = 256;

/// How far before our look a sender's time is believed. Long enough for a queue that was stuck, so that a move
/// whose two events come late is still one; short enough that nobody dates a push to before last year's policy or
/// to before a tag that has long been watched (T-22).
const BELIEVED: SignedDuration = SignedDuration::from_hours(1);

/// The evidence about one tag, sorted by time and free of what adds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagHistory {
    sightings: Vec<Sighting>,
}

impl TagHistory {
    /// A history out of stored sightings, in any order.
    pub fn from_sightings(sightings: Vec<Sighting>) -> TagHistory {
        let mut history = TagHistory { sightings };
        history.tidy();
        history
    }

    /// The sightings, oldest first.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// Whether anything is known of the tag.
    pub fn is_empty(&self) -> bool {
        self.sightings.is_empty()
    }

    /// Adds a sighting.
    ///
    /// A sender's clock can lag behind ours. Where an event's digest is what the registry shows now, and we
    /// ourselves saw another digest after the event's time, the event's time is no evidence: the digest is
    /// sighted at the time of the look instead (`looked_at`).
    pub fn add(&mut self, mut sighting: Sighting, looked_at: Timestamp) {
        let contradicted = sighting.known == Known::Observed
            && !sighting.looked
            && self
                .sightings
                .iter()
                .any(|s| s.looked && s.at >= sighting.at && s.at <= looked_at && s.digest != sighting.digest);
        if contradicted {
            sighting.at = looked_at;
            sighting.looked = true;
        }
        if sighting.actor.is_some() && self.is_told(&sighting) {
            sighting.actor = None;
        }
        self.sightings.push(sighting);
        self.tidy();
    }

    /// Whether an event told before that the tag came to this digest, in this stretch: then whoever is named now is not
    /// who moved it. Only the event that came first says so; a later one may be dated to before it.
    fn is_told(&self, sighting: &Sighting) -> bool {
        let place = |s: &Sighting| (s.at, s.digest.clone(), s.known, s.looked);
        let (before, after) = self.sightings.split_at(self.sightings.partition_point(|s| place(s) < place(sighting)));
        let same = |s: &&Sighting| s.digest == sighting.digest;
        let told = |s: &Sighting| !s.looked || s.actor.is_some();
        if before.iter().rev().take_while(same).chain(after.iter().take_while(same)).any(told) {
            return true;
        }
        // It may also join stretches that are one for another reason, and come first in it.
        let mut with = self.clone();
        with.sightings.push(sighting.clone());
        with.tidy();
        let ours = |p: &Period| p.digest == sighting.digest && p.actor.is_some();
        let meet = |p: &Period, q: &Period| {
            p.from < q.to.unwrap_or(Timestamp::MAX) && q.from < p.to.unwrap_or(Timestamp::MAX) && p.actor != q.actor
        };
        let (known, now) = (self.periods(), with.periods());
        now.iter().filter(|p| ours(p) && p.actor == sighting.actor).any(|p| known.iter().any(|q| ours(q) && meet(p, q)))
    }

    /// Takes in what an event reported and what the registry showed when it was asked because of it.
    ///
    /// An event is a hint: where the registry confirms it, the tag was moved at the event's time; where the
    /// registry shows something else, the digest was only reported. The caller leaves out a report whose
    /// manifest is not there: an event alone makes no history (T-22).
    pub fn witness(&mut self, report: Option<Report>, look: &Look, origin: Origin) {
        // A tag that nothing is known of and that is not there has no history: not even that of being gone.
        if self.is_empty() && look.digest.is_none() && report.as_ref().is_none_or(|r| r.digest.is_none()) {
            return;
        }
        let confirmed = report.as_ref().is_some_and(|r| r.digest == look.digest);
        let believed = |at: Timestamp| at.clamp(look.at.checked_sub(BELIEVED).unwrap_or(Timestamp::MIN), look.at);
        // What we found ourselves before anybody told us of the tag is where its history begins: a story of an earlier
        // past would be a baseline of the sender's choice (T-22).
        let begun = self.sightings.first().filter(|s| s.looked && s.origin == Origin::Audit).map(|s| s.at);
        let told = |r: &Report| r.digest.is_some() && begun.is_none_or(|begun| believed(r.at) >= begun);
        if let Some(report) = report.filter(|r| confirmed || told(r)) {
            let sighting = Sighting {
                digest: report.digest,
                at: believed(report.at),
                known: if confirmed { Known::Observed } else { Known::Reported },
                looked: false,
                origin,
                actor: report.actor,
            };
            self.add(sighting, look.at);
        }
        // The look itself is evidence whatever was told: no later story can put something else there.
        let sighting = Sighting {
            digest: look.digest.clone(),
            at: look.at,
            known: Known::Observed,
            looked: true,
            origin,
            actor: None,
        };
        self.add(sighting, look.at);
    }

    /// Sorts, drops repetitions and looks that found what was known before and after.
    fn tidy(&mut self) {
        self.sightings.sort_by(|a, b| (a.at, &a.digest, a.known, a.looked).cmp(&(b.at, &b.digest, b.known, b.looked)));
        let mut kept: Vec<Sighting> = Vec::with_capacity(self.sightings.len());
        for sighting in self.sightings.drain(..) {
            let n = kept.len();
            if n >= 1 && kept[n - 1].digest == sighting.digest && kept[n - 1].at == sighting.at {
                // The same fact twice: the better known one stands (`Observed` sorts first).
                let known = &mut kept[n - 1].actor;
                *known = known.take().or(sighting.actor);
                continue;
            }
            let run = kept.iter().rev().take_while(|s| s.digest == sighting.digest);
            let looks = run.filter(|s| s.looked).count();
            if looks >= 2 && kept[n - 1].looked && kept[n - 1].actor.is_none() {
                // A look that found nothing new adds nothing; the first of a run says since when it is known,
                // the last until when. What events told is all kept: dropping one would make the history
                // depend on the order in which they came.
                kept.pop();
            }
            kept.push(sighting);
        }
        if kept.len() > SIGHTINGS_MAX {
            kept.drain(2..kept.len() - SIGHTINGS_MAX + 2);
        }
        self.sightings = kept;
    }

    /// The periods, oldest first.
    ///
    /// A digest that was only reported, that the tag already had before, and that the registry never showed
    /// in that stretch is a replica's late event, not a move back (one push to a geo-replicated registry
    /// raises one event from each replica).
    pub fn periods(&self) -> Vec<Period> {
        let mut periods: Vec<Period> = Vec::new();
        for run in self.sightings.chunk_by(|a, b| a.digest == b.digest) {
            let known = run.iter().map(|s| s.known).min().unwrap_or(Known::Reported);
            let seen_before = || periods.iter().any(|p| p.digest == run[0].digest);
            if known == Known::Reported && seen_before() {
                continue;
            }
            if let Some(last) = periods.last_mut() {
                if last.digest == run[0].digest {
                    last.known = last.known.min(known);
                    continue;
                }
                last.to = Some(run[0].at);
            }
            periods.push(Period {
                digest: run[0].digest.clone(),
                from: run[0].at,
                to: None,
                known,
                origin: run[0].origin,
                actor: run.iter().find_map(|s| s.actor.clone()),
            });
        }
        periods
    }

    /// How often the tag went from one digest to another; being gone in between is no move.
    pub fn moves(&self) -> u32 {
        let digests: Vec<Digest> = self.periods().into_iter().filter_map(|p| p.digest).collect();
        u32::try_from(digests.windows(2).filter(|w| w[0] != w[1]).count()).unwrap_or(u32::MAX)
    }

    /// When a digest was first seen at this tag: by our own look, as a sender may say any time (T-22).
    pub fn first_seen(&self, digest: &Digest) -> Option<Timestamp> {
        let mut seen = self.sightings.iter().filter(|s| s.digest.as_ref() == Some(digest));
        seen.clone().find(|s| s.looked).or_else(|| seen.next()).map(|s| s.at)
    }

    /// What the tag has now, by the last sighting that the registry confirmed; `None` when it is gone or
    /// was never confirmed.
    pub fn current(&self) -> Option<&Digest> {
        self.sightings.iter().rev().find(|s| s.known == Known::Observed)?.digest.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn d(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn event(name: &str, at: i64, known: Known) -> Sighting {
        Sighting { digest: Some(d(name)), at: t(at), known, looked: false, origin: Origin::Event, actor: None }
    }

    fn look(name: Option<&str>, at: i64) -> Sighting {
        Sighting {
            digest: name.map(d),
            at: t(at),
            known: Known::Observed,
            looked: true,
            origin: Origin::Audit,
            actor: None,
        }
    }

    fn names(history: &TagHistory) -> Vec<Option<Digest>> {
        history.periods().into_iter().map(|p| p.digest).collect()
    }

    #[test]
    fn g13_a_restore_is_two_moves_and_a_late_replica_event_none() {
        let mut restored = TagHistory::default();
        restored.add(event("a", 1, Known::Observed), t(1));
        restored.add(event("b", 2, Known::Observed), t(2));
        restored.add(event("a", 3, Known::Observed), t(3));
        assert_eq!(names(&restored), [Some(d("a")), Some(d("b")), Some(d("a"))]);

        let mut late = TagHistory::default();
        late.add(event("a", 1, Known::Observed), t(1));
        late.add(event("b", 2, Known::Observed), t(2));
        late.add(event("a", 3, Known::Reported), t(4));
        late.add(look(Some("b"), 4), t(4));
        assert_eq!(names(&late), [Some(d("a")), Some(d("b"))]);
        assert_eq!(late.current(), Some(&d("b")));
    }

    #[test]
    fn t66_a_sender_whose_clock_lags_does_not_rewrite_the_past() {
        let mut history = TagHistory::default();
        history.add(look(Some("a"), 10), t(10));
        history.add(event("b", 5, Known::Observed), t(12));
        assert_eq!(names(&history), [Some(d("a")), Some(d("b"))]);
    }

    #[test]
    fn t22_nobody_tells_of_a_past_before_what_was_found() {
        let report = |name: &str, at: i64| Some(Report { digest: Some(d(name)), at: t(at), actor: None });
        let shows = |name: &str, at: i64| Look { digest: Some(d(name)), at: t(at) };
        let mut history = TagHistory::default();
        history.witness(None, &shows("found", 1_000), Origin::Audit);
        // Of another manifest that is there, dated to shortly before the first sweep, and to long before it.
        for at in [900, -1_000_000] {
            history.witness(report("forged", at), &shows("found", 1_100), Origin::Event);
        }
        assert_eq!(names(&history), [Some(d("found"))]);
        // Then the tag is moved there: a move, and no way back.
        history.witness(report("forged", 900), &shows("forged", 1_200), Origin::Event);
        assert_eq!(names(&history), [Some(d("found")), Some(d("forged"))]);
        // What is told of the time since is evidence as ever.
        history.witness(report("late", 1_150), &shows("forged", 1_300), Origin::Event);
        assert_eq!(names(&history), [Some(d("found")), Some(d("late")), Some(d("forged"))]);
    }

    #[test]
    fn t22_a_backdated_event_changes_neither_the_beginning_nor_the_order() {
        let day = 86_400;
        let report = |name: &str, at: i64| Some(Report { digest: Some(d(name)), at: t(at), actor: None });
        let shows = |name: &str, at: i64| Look { digest: Some(d(name)), at: t(at) };
        let mut history = TagHistory::default();
        history.witness(report("image", 0), &shows("image", 1), Origin::Event);
        history.witness(report("index", 600), &shows("index", 601), Origin::Event);
        let before = history.periods();
        // The digest that the tag has, dated years back: nothing is older for it.
        history.witness(report("index", -700 * day), &shows("index", 700), Origin::Event);
        // The same, dated to just after the first push, where another digest was seen.
        history.witness(report("index", 0), &shows("index", 800), Origin::Event);
        assert_eq!(
            history.periods().iter().map(|p| &p.digest).collect::<Vec<_>>(),
            before.iter().map(|p| &p.digest).collect::<Vec<_>>()
        );
        assert_eq!(history.first_seen(&d("index")), Some(t(601)));
        // Another digest, dated to before a tag that is watched for two days: it is put where it can have been.
        history.witness(report("other", -day), &shows("index", 2 * day), Origin::Event);
        assert_eq!(history.periods()[0].digest, Some(d("image")));
        assert_eq!(history.current(), Some(&d("index")));
    }

    #[test]
    fn t22_who_moved_a_tag_is_said_by_the_event_that_came_first() {
        let report = |at: i64, actor: Option<&str>| {
            Some(Report { digest: Some(d("moved")), at: t(at), actor: actor.map(str::to_owned) })
        };
        let shows = |name: &str, at: i64| Look { digest: Some(d(name)), at: t(at) };
        for first in [Some("mallory"), None] {
            let mut history = TagHistory::default();
            history.witness(None, &shows("first", 1_000), Origin::Audit);
            history.witness(report(2_000, first), &shows("moved", 2_001), Origin::Event);
            // Dated to before it, to its very moment, and to after it.
            for at in [1_500, 2_000, 2_001, 2_500] {
                history.witness(report(at, Some("alice")), &shows("moved", 3_000 + at), Origin::Event);
                let now = history.periods().pop().unwrap();
                assert_eq!((now.digest, now.actor.as_deref()), (Some(d("moved")), first), "dated {at}");
            }
        }
        // What a sweep found is told of by the first event.
        let mut history = TagHistory::default();
        history.witness(None, &shows("first", 1_000), Origin::Audit);
        history.witness(None, &shows("moved", 2_000), Origin::Audit);
        history.witness(report(1_900, Some("mallory")), &shows("moved", 2_100), Origin::Event);
        assert_eq!(history.periods().pop().unwrap().actor.as_deref(), Some("mallory"));
        // Back and moved again is another move, by somebody else.
        history.witness(None, &shows("first", 3_000), Origin::Audit);
        history.witness(report(4_000, Some("bob")), &shows("moved", 4_001), Origin::Event);
        let actors: Vec<_> = history.periods().into_iter().map(|p| p.actor).collect();
        assert_eq!(actors, [None, Some("mallory".to_owned()), None, Some("bob".to_owned())]);
    }

    #[test]
    fn a_deletion_is_a_period() {
        let mut history = TagHistory::default();
        history.add(look(Some("a"), 1), t(1));
        history.add(look(None, 2), t(2));
        history.add(look(Some("b"), 3), t(3));
        assert_eq!(names(&history), [Some(d("a")), None, Some(d("b"))]);
    }

    #[test]
    fn a_long_history_keeps_its_first_period() {
        let sightings = (0..2_000).map(|n| event(&n.to_string(), n, Known::Observed)).collect();
        let history = TagHistory::from_sightings(sightings);
        assert_eq!(history.sightings().len(), SIGHTINGS_MAX);
        assert_eq!(history.periods()[0].digest, Some(d("0")));
        assert_eq!(history.current(), Some(&d("1999")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn t22_no_later_event_names_another_who_moved_a_tag(
            moves in proptest::collection::vec(0u8..3, 1..6),
            forged in proptest::collection::vec(0i64..4_000, 1..6),
        ) {
            let mut history = TagHistory::default();
            for (n, name) in moves.iter().enumerate() {
                let (at, name) = (n as i64 * 600, name.to_string());
                let look = Look { digest: Some(d(&name)), at: t(at + 1) };
                let report = Report { digest: Some(d(&name)), at: t(at), actor: Some(format!("{name} at {n}")) };
                history.witness(Some(report), &look, Origin::Event);
            }
            let last = moves.last().unwrap().to_string();
            for (n, at) in forged.iter().enumerate() {
                let before = history.periods();
                let look = Look { digest: Some(d(&last)), at: t(4_000 + n as i64) };
                let report = Report { digest: Some(d(&last)), at: t(*at), actor: Some("forger".to_owned()) };
                history.witness(Some(report), &look, Origin::Event);
                let after = history.periods();
                let (known, now) = (&before.last().unwrap().actor, &after.last().unwrap().actor);
                prop_assert_eq!(known, now, "{:?}\n{:?}", before, after);
            }
        }

        #[test]
        fn g12_any_order_and_any_copies_give_one_history(
            moves in proptest::collection::vec(0u8..4, 1..8),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
            extra in subsequence((0..8usize).collect::<Vec<_>>(), 0..8),
        ) {
            // The registry already shows the last digest when the events are processed, in any order.
            let last = *moves.last().unwrap();
            let all: Vec<Sighting> = moves.iter().enumerate().map(|(n, m)| {
                event(&m.to_string(), n as i64, if *m == last { Known::Observed } else { Known::Reported })
            }).collect();
            let mut straight = TagHistory::default();
            for s in &all { straight.add(s.clone(), t(100)); }
            let mut shuffled = TagHistory::default();
            let mut queue: Vec<Sighting> = all.clone();
            queue.extend(extra.iter().filter_map(|n| all.get(*n).cloned()));
            for index in order {
                if queue.is_empty() { break }
                let at = index.index(queue.len());
                shuffled.add(queue.swap_remove(at), t(100));
            }
            for s in queue { shuffled.add(s, t(100)); }
            prop_assert_eq!(straight.periods(), shuffled.periods());
        }
    }
}
