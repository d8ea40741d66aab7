//! The exit code of everything that judges: 0, 1, 2 or 3, the same for every command.

use super::Report;
use crate::policy::{Finding, Outcome, Severity, State};

/// What the caller asked of the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRules {
    /// The least severity that fails.
    pub fail_on: Severity,
    /// Whether nothing to judge is accepted.
    pub allow_empty: bool,
    /// Whether findings and errors are reported without failing. Nothing to judge stays a fault.
    pub exit_zero: bool,
}

impl Default for ExitRules {
    fn default() -> ExitRules {
        ExitRules { fail_on: Severity::Warning, allow_empty: false, exit_zero: false }
    }
}

impl ExitRules {
    /// 1 for a violation at or above `fail_on`, else 3 for what could not be determined, else 2 for nothing
    /// judged, else 0. What is only pending is no violation.
    pub fn code(&self, report: &Report) -> u8 {
        let findings = || report.verdicts.iter().flat_map(|v| &v.findings);
        let fails = |f: &Finding| !f.is_error() && f.state == State::Firing && f.severity >= self.fail_on;
        let undetermined = || {
            !report.problems.is_empty()
                || report.verdicts.iter().any(|v| v.outcome == Outcome::Error)
                || findings().any(Finding::is_error)
        };
        if findings().any(fails) {
            if self.exit_zero { 0 } else { 1 }
        } else if undetermined() {
            if self.exit_zero { 0 } else { 3 }
        } else if report.verdicts.is_empty() && !self.allow_empty {
            2
        } else {
            0
        }
    }
}
