//! Connections: taken up to a limit, each with its time-outs, and drained when the service stops.

use crate::app::App;
use crate::config::Limits;
use crate::routes;
use crate::stream::Impatient;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Said to a connection beyond the limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 136\r\n\r\n\
{\"error\":{\"code\":\"overloaded\",\"message\":\"too many connections are open\",\"hint\":\"wait as long as Retry-After says, then connect again\"}}\n";

/// How long the system gets to free a file handle before the next connection is taken.
const OUT_OF_HANDLES: Duration = Duration::from_millis(50);

/// Serves until `stop` comes, then lets requests end.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let router = routes::router(&app);
    let slots = Arc::new(Semaphore::new(app.limits().connections));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(async {
        stop.await;
        // From here on questions are refused, those who watch see it, and who has connected already is still told.
        app.stopping.store(true, Ordering::Release);
        tokio::time::sleep(Limits::duration(app.limits().farewell_ms)).await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => connect(&app, (stream, slot), router.clone(), &graceful),
                Err(_) => {
                    app.metrics.connections_refused.inc();
                    tokio::spawn(refuse(stream));
                }
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(OUT_OF_HANDLES).await;
            }
        }
    }
    drop(listener);
    let longest = Limits::duration(app.limits().drain_ms);
    match tokio::time::timeout(longest, graceful.shutdown()).await {
        Ok(()) => tracing::info!("every request has ended"),
        Err(_) => tracing::warn!("requests were still under way when the time to end them was over"),
    }
}

/// Serves one connection in a task of its own.
fn connect(
    app: &Arc<App>,
    (stream, slot): (TcpStream, OwnedSemaphorePermit),
    router: Router,
    graceful: &GracefulShutdown,
) {
    // Answers are small and awaited.
    let _ = stream.set_nodelay(true);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Limits::duration(app.limits().header_ms))
        .max_buf_size(64 << 10)
        .max_headers(64);
    let stream = Impatient::new(stream, Limits::duration(app.limits().write_ms));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    let app = Arc::clone(app);
    app.metrics.connections.inc();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
        app.metrics.connections.dec();
        drop(slot);
    });
}

/// Says that there are too many connections, within a second, and closes.
async fn refuse(mut stream: TcpStream) {
    let say = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), say).await;
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_refusal_of_connections_is_sound() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
