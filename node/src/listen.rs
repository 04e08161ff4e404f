//! Connections: how many there may be, how long one may take for what, and their end when the daemon stops.
//!
//! Slow or silent clients cost a connection for seconds and nothing else: a request's head must be there within
//! [`HEAD_PATIENCE`], and a body or an answer must move within [`IDLE_PATIENCE`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tower_http::timeout::TimeoutBody;

/// Connections at once, in all and from one address of another machine.
const N_CONNECTIONS: usize = 1024;
const N_PER_ADDRESS: usize = 64;
/// Of all, those that only this machine itself may have.
const N_KEPT: usize = 64;
/// How long the head of a request may take; also how long a connection may wait for its next one.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come of a body, and nothing be taken of an answer.
const IDLE_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes and fields of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
const N_FIELDS_MAX: usize = 100;
/// Pause after the system has refused a connection, as it does when it has no files left.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the router's routes until `stop`; answers that are under way then may finish.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    raise_file_limit();
    let open = Open::default();
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if lost(&error) => continue,
            Err(error) => {
                tracing::warn!("no connection can be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once, which costs its client nothing it had.
        let Some(place) = open.take(address.ip()) else { continue };
        if let Err(error) = watch(&stream) {
            tracing::warn!("a client that vanishes will not be noticed: {error}");
        }
        let connection = graceful.watch(connection(stream, address, router.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Io = TokioIo<std::pin::Pin<Box<TimeoutStream<TcpStream>>>>;

/// A connection with its bounds, which serves requests when it is awaited.
fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
) -> http1::Connection<
    Io,
    impl hyper::service::Service<
        Request<Incoming>,
        Response = axum::response::Response,
        Error = std::convert::Infallible,
        Future: Send,
    >,
> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(IDLE_PATIENCE));
    let service = service_fn(move |request: Request<Incoming>| {
        let too_long = head_bytes(&request) > HEAD_BYTES_MAX;
        let mut request = request.map(|body| Body::new(TimeoutBody::new(IDLE_PATIENCE, body)));
        request.extensions_mut().insert(ConnectInfo(address));
        let router = router.clone();
        async move {
            if too_long { Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()) } else { router.oneshot(request).await }
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(N_FIELDS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}

/// Bytes of a request's address and fields. What the connection reads at once may hold a little more than its bound.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    request.uri().path().len() + request.uri().query().map_or(0, str::len) + fields.sum::<usize>()
}

/// Ends a connection whose client has vanished without a word (a pulled cable, a sleeping laptop) within 25 seconds: a quiet
/// one is asked three times whether it is there, and bytes that are not acknowledged count the same.
fn watch(connection: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(connection);
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&probes.with_retries(3))?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(25)))
}

/// Whether the client of a connection has gone before it was accepted.
fn lost(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// As many files as the system lets this process have, up to what connections and models take.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let wanted = 4 * N_CONNECTIONS as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the number of open files stays as it is: {error}");
        }
    }
}

/// Connections that are open, by address.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; dropped, it makes room.
struct Taken {
    open: Open,
    address: IpAddr,
}

impl Open {
    /// A place for a connection from an address, if there is one. This machine itself is bound by the whole only.
    fn take(&self, address: IpAddr) -> Option<Taken> {
        let address = access::host_of(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let this_machine = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])].contains(&address);
        let from_here = open.get(&address).copied().unwrap_or(0);
        let (all, own) = if this_machine { (N_CONNECTIONS, N_CONNECTIONS) } else { (N_CONNECTIONS - N_KEPT, N_PER_ADDRESS) };
        if open.values().sum::<usize>() >= all || from_here >= own {
            return None;
        }
        open.insert(address, from_here + 1);
        drop(open);
        Some(Taken { open: self.clone(), address })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}
