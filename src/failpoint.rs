//! Named points at which a test ends the process, as a crash would. There is nothing of it in a build without
//! `cfg(failpoints)`, which only `tests/reliability/failpoints` sets; then the environment says which point and when.

/// A point with a name of its own.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(failpoints)]
        $crate::failpoint::reached($name);
    };
}

/// Ends the process when the point that `TIDEWAITER_FAILPOINT` names (`NAME:N`) is reached for the Nth time.
#[cfg(failpoints)]
#[expect(clippy::disallowed_methods, reason = "what is there only for a test is told by the test's environment")]
pub(crate) fn reached(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("TIDEWAITER_FAILPOINT").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });
    if let Some((wanted, left)) = wanted
        && wanted == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}
