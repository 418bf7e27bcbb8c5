//! An engine in this process: the lock, the jobs, the socket, and how it ends.

use super::{output::Ending, places::Places, service::EngineService};
use crate::{
    control::{
        Client,
        listener::{EngineLock, Listener},
        server,
    },
    engine::supervisor::{AtOpen, Engine, EnginePaths},
    tui::Connect,
};
use std::sync::Arc;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Bytes that an in-process pipe holds.
const PIPE: usize = 1 << 20;

/// An engine that is served.
pub struct Host {
    pub engine: Engine,
    service: Arc<EngineService>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// What ended a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// SIGINT.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminate,
    /// A client's `Shutdown`.
    Client,
}

impl Host {
    /// Takes the lock, opens the jobs, and listens.
    pub async fn open(places: &Places, at_open: AtOpen) -> Result<Host, Ending> {
        Host::with(places, EngineLock::take(&places.lock_file())?, at_open).await
    }

    /// Opens the jobs and listens, with the lock in hand.
    pub async fn with(places: &Places, lock: EngineLock, at_open: AtOpen) -> Result<Host, Ending> {
        // The socket answers only when the jobs are known, so bind it last; until then the lock says that we run.
        let engine = Engine::open(EnginePaths { state: places.state.clone() }, at_open).await?;
        let listener = match Listener::bind(&places.socket(), lock) {
            Ok(listener) => listener,
            Err(error) => {
                engine.close().await;
                return Err(error.into());
            }
        };
        let stop = CancellationToken::new();
        let service = Arc::new(EngineService::new(engine.clone(), stop.clone()));
        let server = tokio::spawn(server::serve(listener, service.clone(), stop.clone()));
        Ok(Host { engine, service, stop, server })
    }

    /// A client of this engine, over a pipe.
    pub async fn client(&self) -> Result<Client, Ending> {
        Ok(self.connector()().await?)
    }

    /// Makes clients of this engine, for a console in the same process.
    pub fn connector(&self) -> Connect {
        let (service, stop) = (self.service.clone(), self.stop.clone());
        Arc::new(move || {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            tokio::spawn(server::connection(theirs, service.clone(), stop.clone()));
            Box::pin(Client::over(ours, false))
        })
    }

    /// Waits until something ends this engine.
    pub async fn ended(&self) -> std::io::Result<EndedBy> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(tokio::select! {
            _ = interrupt.recv() => EndedBy::Interrupt,
            _ = terminate.recv() => EndedBy::Terminate,
            _ = hangup.recv() => EndedBy::Terminate,
            _ = self.stop.cancelled() => EndedBy::Client,
        })
    }

    /// Halts the links, says goodbye to the clients, lets the lock go.
    pub async fn close(self) {
        self.engine.close().await;
        self.stop.cancel();
        _ = self.server.await;
    }
}
