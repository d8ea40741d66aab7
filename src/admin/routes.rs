//! Every route of the admin listener, with what it asks of the caller.

use super::respond::Fault;

/// What a route asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: health, metrics, and files that hold no data.
    Open,
    /// The bearer token, where one is configured.
    Read,
    /// A bearer token, always.
    Write,
}

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method; HEAD is answered where GET is.
    pub method: &'static str,
    /// The whole path.
    pub path: &'static str,
    /// What it asks of the caller.
    pub access: Access,
    pub(super) handler: Handler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Live,
    Ready,
    Metrics,
    OpenApi,
    Console,
    ConsoleScript,
    ConsoleStyle,
    Violations,
    Verdicts,
    History,
    Events,
    DeadLetters,
    Retry,
    Accept,
    Check,
}

const fn get(path: &'static str, access: Access, handler: Handler) -> Route {
    Route { method: "GET", path, access, handler }
}

const fn post(path: &'static str, access: Access, handler: Handler) -> Route {
    Route { method: "POST", path, access, handler }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    get("/livez", Access::Open, Handler::Live),
    get("/readyz", Access::Open, Handler::Ready),
    // Its labels are names out of the configuration and nothing else, and scrapers rarely have a token.
    get("/metrics", Access::Open, Handler::Metrics),
    get("/openapi.json", Access::Open, Handler::OpenApi),
    get("/", Access::Open, Handler::Console),
    get("/console.js", Access::Open, Handler::ConsoleScript),
    get("/console.css", Access::Open, Handler::ConsoleStyle),
    get("/api/v1/violations", Access::Read, Handler::Violations),
    get("/api/v1/verdicts", Access::Read, Handler::Verdicts),
    get("/api/v1/history", Access::Read, Handler::History),
    get("/api/v1/events", Access::Read, Handler::Events),
    get("/api/v1/dead-letters", Access::Read, Handler::DeadLetters),
    post("/api/v1/dead-letters/retry", Access::Write, Handler::Retry),
    post("/api/v1/acceptances", Access::Write, Handler::Accept),
    // Changes nothing, though it asks registries with the daemon's credentials: what it tells is what the
    // record tells.
    post("/api/v1/check", Access::Read, Handler::Check),
];

/// The route of a request.
pub(super) fn find(path: &str, method: &str) -> Result<&'static Route, Fault> {
    let here: Vec<&'static Route> = ROUTES.iter().filter(|route| route.path == path).collect();
    if here.is_empty() {
        return Err(Fault::NotFound);
    }
    match here.iter().find(|route| route.method == method) {
        Some(route) => Ok(route),
        None => Err(Fault::Method { allowed: here.iter().map(|route| route.method).collect() }),
    }
}
