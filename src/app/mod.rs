//! Builds the rooms from the configuration and runs the daemon: in the order of the pipeline, each room with
//! what it needs and nothing more. The one place that wires.

mod check;
mod hooks;
mod policies;
mod record;
mod settings;
mod troubles;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use crate::admin::{self, Admin, Readiness, ReadyLimits};
use crate::alert;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, StoreUrl};
use crate::identity::Subscriptions;
use crate::intake::{Hooks, Intake, Sources};
use crate::listen::{SelfSigned, Tls};
use crate::metrics::{Listener, Metrics};
use crate::pipeline::{Pipeline, Reach, Reconcile};
use crate::shutdown::{End, Shutdown};
use crate::store::embedded::{EmbeddedStore, Options};
use crate::store::{Retention, Store};
use crate::telemetry;

pub use policies::{PolicyFault, beside as read_beside_policy, load as load_policies, sources as policy_sources};
pub use record::{Recorder, open_store, retry_dead_letters};
pub use settings::{registry_settings, sink_settings, tls_files};

/// How long draining may take: senders wait at most this long for an answer, and a step for its registry.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the start waits for the keys of token issuers: senders whose tokens are refused come back late.
const KEYS_WAIT: Duration = Duration::from_secs(3);
/// How often what is kept is looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Runs the daemon until it is told to stop; the exit code.
///
/// # Errors
/// What keeps it from starting, each with what to do.
pub async fn serve(config: Config) -> anyhow::Result<u8> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new().context("setting up metrics")?);
    telemetry::init(settings::log_format(&config), settings::log_filter(&config), metrics.clone(), clock.clone())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::new(DRAIN);
    shutdown.watch_signals().context("watching for signals")?;

    // What is judged by, and by whom.
    let set = policies::load(&config.policies).map_err(|faults| anyhow!(faults))?;
    settings::announce(&metrics, &config, &set);
    metrics.policies_read(Some(set.policies().len()), clock.now());
    let set = Arc::new(ArcSwap::from_pointee(set));
    let registries = settings::registries(&config, &metrics)?;
    let sinks = settings::sinks(&config)?;
    let sink_infos: Arc<[alert::SinkInfo]> = sinks.iter().map(alert::SinkSettings::info).collect();

    // The record.
    let path = match &config.store {
        StoreUrl::Sqlite(path) => path.clone(),
        StoreUrl::Postgres(_) => {
            return Err(anyhow!("`store.url`: this build has no PostgreSQL store yet; write `sqlite:FILE`"));
        }
    };
    let options = Options {
        backlog_events: config.limits.backlog_events,
        backlog_bytes: config.limits.backlog_bytes,
        ..Options::default()
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        tracing::warn!(folder = %folder.display(), "the store's folder is not there and is made: a new record begins");
    }
    let store = Arc::new(EmbeddedStore::open(&path, options)?);
    {
        let metrics = metrics.clone();
        store.on_commit(move |elapsed| metrics.committed(elapsed));
    }

    // The listeners bind before anything works, so that a taken port is told at once.
    let state = config.state_folder();
    let events_socket = bind(config.listen.events, "listen.events").await?;
    let admin_socket = bind(config.listen.admin, "listen.admin").await?;
    let (events_at, admin_at) = (events_socket.local_addr()?, admin_socket.local_addr()?);
    let tls = events_tls(&config, &state, &metrics, &clock)?;
    let admin_tls = match &config.admin.tls {
        Some(files) => Some(Tls::load(settings::tls_files(files), Listener::Admin, metrics.clone(), clock.clone())?),
        None => None,
    };

    // Out: alerts from the outbox.
    let observer: Arc<dyn alert::Observer> = Arc::new(settings::Counted(metrics.clone()));
    let alert_clock: alert::Clock = {
        let clock = clock.clone();
        Arc::new(move || clock.now())
    };
    let links = alert::Links::new(None, Some(crate::report::REASONS_URL))?;
    let couriers = alert::start(&store, sinks, &links, &alert_clock, &observer, &shutdown.token())?;
    for courier in couriers {
        shutdown.tasks().spawn(async move {
            if let Err(error) = courier.task.await {
                tracing::error!(sink = &*courier.sink, %error, "delivery to the sink ended by a fault of the program");
            }
        });
    }

    // The middle.
    let pipeline = Pipeline {
        store: store.clone(),
        registries,
        policies: set.clone(),
        sinks: sink_infos,
        clock: clock.clone(),
        metrics: metrics.clone(),
        baselined: Arc::default(),
        proving: Arc::default(),
        heard: Arc::default(),
        rejudged: Arc::default(),
    };
    shutdown.tasks().spawn(pipeline.clone().run(shutdown.token()));
    for host in pipeline.registries.hosts().cloned() {
        let reach = Reach { pipeline: pipeline.clone(), host, after: config.limits.undetermined_after };
        shutdown.tasks().spawn(reach.run(shutdown.token()));
    }
    for (host, plan) in settings::reconcile(&config)? {
        metrics.reconciles_every(host.as_str(), plan.every);
        let hooked = config.sources.iter().any(|source| source.registries.contains(&host));
        let sweep = Reconcile { pipeline: pipeline.clone(), host, plan, hooked };
        shutdown.tasks().spawn(sweep.run(shutdown.token()));
    }
    shutdown.tasks().spawn(pipeline.clone().tell_rejudged(shutdown.token()));
    shutdown.tasks().spawn(policies::watch(
        config.policies.clone(),
        config.clone(),
        pipeline.clone(),
        shutdown.token(),
    ));
    shutdown.tasks().spawn(troubles::watch(pipeline.clone(), config.clone(), shutdown.token()));
    shutdown.tasks().spawn(prune(store.clone(), settings::retention(&config), clock.clone(), shutdown.token()));

    // In: events and people.
    let senders = settings::senders(&config)?;
    for issuer in &senders.issuers {
        shutdown.tasks().spawn(issuer.clone().run(shutdown.token()));
    }
    futures_util::future::join_all(senders.issuers.iter().map(|issuer| issuer.first(KEYS_WAIT))).await;
    let open: Arc<HashSet<String>> =
        Arc::new(config.sources.iter().filter(|s| s.auth.is_none()).map(|s| s.name.clone()).collect());
    for source in open.iter() {
        tracing::warn!(source, "this source takes events from anybody (`allowUnauthenticated`)");
    }
    let hooks = Hooks {
        admission: Some(Arc::new(hooks::Gate { pipeline: pipeline.clone() })),
        confirm: Some(Arc::new(Subscriptions::new(senders.topics, shutdown.tasks().clone(), shutdown.token()))),
        buried: Some(Arc::new(hooks::DeadLetters::new(pipeline.clone(), shutdown.tasks().clone(), open.clone()))),
    };
    let sources = Sources::new(senders.sources, metrics.clone());
    let retry = Arc::new(hooks::Reread { sources: sources.clone(), store: store.clone() });
    let intake =
        Intake::new(sources, settings::intake_limits(&config), hooks, store.clone(), clock.clone(), shutdown.token());
    shutdown.tasks().spawn(tls.clone().watch(shutdown.token()));
    shutdown.tasks().spawn(intake.serve(events_socket, Some(tls), shutdown.token()));
    let limits = ReadyLimits { backlog_events: config.limits.backlog_events, ..ReadyLimits::default() };
    let readiness = Arc::new(Readiness::new(limits, shutdown.token()));
    {
        let (readiness, store) = (readiness.clone(), store.clone());
        shutdown.tasks().spawn(async move { readiness.watch(&*store).await });
    }
    let tokens = admin::Tokens {
        configured: config.admin.token.as_ref().map(|t| t.expose().to_owned().into()),
        local: match config.admin.token {
            Some(_) => None,
            None => Some(
                admin::local_token(&state.join("admin-token")).context("writing the admin token beside the store")?,
            ),
        },
    };
    let check = Arc::new(check::Checks { pipeline });
    if let Some(tls) = &admin_tls {
        shutdown.tasks().spawn(tls.clone().watch(shutdown.token()));
    }
    let admin =
        Admin::new(store.clone(), readiness.clone(), admin::Hooks { check, retry, open }, tokens, metrics, clock);
    shutdown.tasks().spawn(admin.serve(admin_socket, admin_tls, shutdown.token()));
    failpoint!("start-before-ready");
    readiness.started();
    failpoint!("start-ready");
    tracing::info!(events = %events_at, admin = %admin_at, policies = set.load().policies().len(), "tidewaiter is ready");

    // A store that can acknowledge nothing more ends the process, with an error.
    let broken = tokio::select! {
        end = shutdown.ended() => Ok(end),
        why = store.broken() => Err(why),
    };
    failpoint!("drained");
    match broken {
        Ok(end) => {
            match end {
                End::Drained => tracing::info!("stopped; everything acknowledged is on disk"),
                End::Deadline => {
                    tracing::warn!("stopped at the deadline; what was under way is done again at the next start")
                }
                End::Aborted => {}
            }
            Ok(end.exit_code())
        }
        Err(why) => {
            shutdown.abort();
            Err(anyhow!("the store is broken, nothing more is acknowledged: {why}"))
        }
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("`{setting}`: cannot listen on {address}; is another tidewaiter running? set another address")
    })
}

fn events_tls(
    config: &Config,
    state: &std::path::Path,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Tls>> {
    if let Some(files) = &config.tls {
        return Ok(Tls::load(settings::tls_files(files), Listener::Events, metrics.clone(), clock.clone())?);
    }
    let names = settings::own_names(config);
    let own = SelfSigned::ensure(state, &names, clock.now())?;
    tracing::info!(
        ca = %own.ca().display(),
        fingerprint = own.fingerprint()?,
        "no certificate is configured: serving a self-signed one; give senders this CA file to trust"
    );
    Ok(Tls::self_signed(own, None, Listener::Events, metrics.clone(), clock.clone())?)
}

/// Lets go of what retention does not keep, now and then.
async fn prune<S: Store>(
    store: Arc<S>,
    retention: Retention,
    clock: Arc<dyn Clock>,
    stop: tokio_util::sync::CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
        match store.prune(retention, clock.now()).await {
            Ok(pruned) => tracing::debug!(?pruned, "pruned the store"),
            Err(error) => tracing::warn!(%error, "the store could not be pruned; tried again in an hour"),
        }
    }
}
