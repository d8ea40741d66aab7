//! Many alerts in one message, for people, when they come faster than people read: the worst first, everything
//! counted, and where the whole list is (T-55). Pure.

use super::message::Alert;
use super::text;
use crate::policy::Severity;
use crate::policy::violation::Edge;

/// How many are named; the others are counted by severity and reason.
const NAMED_MAX: usize = 15;
/// How many reasons are named.
const REASONS_MAX: usize = 8;
/// Longest line, in UTF-16 units: 15 + 8 of them stay below a section of Slack (3,000).
const LINE_MAX: usize = 110;

/// Alerts in the order of their severity.
pub(super) struct Summary<'a> {
    alerts: Vec<&'a Alert>,
}

impl<'a> Summary<'a> {
    pub fn of(alerts: &'a [Alert]) -> Summary<'a> {
        let mut alerts: Vec<&Alert> = alerts.iter().collect();
        // What fires before what is over, then the worst; the order of arrival within.
        alerts.sort_by_key(|a| (a.edge == Edge::Resolved, std::cmp::Reverse(a.severity)));
        Summary { alerts }
    }

    /// The worst severity among those that fire.
    pub fn worst(&self) -> Option<Severity> {
        self.alerts.iter().filter(|a| a.edge == Edge::Fired).map(|a| a.severity).max()
    }

    /// `1000 alerts at once: 12 critical, 980 warning, 8 resolved`.
    pub fn title(&self) -> String {
        let mut counts = Vec::new();
        for severity in Severity::ALL.iter().rev() {
            let count = self.count(|a| a.edge == Edge::Fired && a.severity == *severity);
            if count > 0 {
                counts.push(format!("{count} {severity}"));
            }
        }
        let resolved = self.count(|a| a.edge == Edge::Resolved);
        if resolved > 0 {
            counts.push(format!("{resolved} resolved"));
        }
        format!("{} alerts at once: {}", self.alerts.len(), counts.join(", "))
    }

    /// The lines below the title: the worst by name, the rest by reason, where to see all.
    pub fn lines(&self) -> Vec<String> {
        let line = |text: String| text::fit(&text, LINE_MAX, text::plain);
        let mut lines: Vec<String> =
            self.alerts.iter().take(NAMED_MAX).map(|a| line(format!("{} · {}", a.severity, a.title()))).collect();
        let rest = self.alerts.get(NAMED_MAX..).unwrap_or_default();
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for alert in rest {
            match reasons.iter_mut().find(|(reason, _)| *reason == alert.reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((&alert.reason, 1)),
            }
        }
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        lines.extend(reasons.iter().take(REASONS_MAX).map(|(reason, count)| line(format!("and {count} × {reason}"))));
        let others: usize = reasons.iter().skip(REASONS_MAX).map(|(_, count)| count).sum();
        if others > 0 {
            lines.push(format!("and {others} more for other reasons"));
        }
        lines.push("`tidewaiter violations` lists every one of them.".to_owned());
        lines
    }

    fn count(&self, which: impl Fn(&Alert) -> bool) -> usize {
        self.alerts.iter().filter(|a| which(a)).count()
    }
}
