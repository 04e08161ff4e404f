//! What happens below the requests (rows D of the bad-input matrix): slow, silent, shapeless and far too many.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use daemon::{Daemon, canary, endless, eventually, row};
use serde_json::json;
use socket2::{Domain, Socket, Type};

fn connect(d: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(&d.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends bytes and reads until the server closes.
fn answer(d: &Daemon, bytes: &[u8]) -> String {
    let mut stream = connect(d);
    // A server that refuses early does not read everything.
    _ = stream.write_all(bytes);
    rest(&mut stream)
}

/// What comes until the server closes, however it does.
fn rest(stream: &mut TcpStream) -> String {
    let mut found = Vec::new();
    match stream.read_to_end(&mut found) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => String::from_utf8_lossy(&found).into_owned(),
    }
}

/// Heads and bodies that never end cost a connection for seconds, and nobody else anything.
#[test]
fn d01_d02_slow_heads_and_bodies_are_closed() {
    row(|d| {
        let reference = canary(d);
        let begun = Instant::now();
        let mut heads: Vec<TcpStream> = (0..100)
            .map(|_| {
                let mut stream = connect(d);
                stream.write_all(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
                stream
            })
            .collect();
        // One that was served, and asks for nothing more.
        let mut idle = connect(d);
        idle.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        heads.push(idle);
        let mut body = connect(d);
        body.write_all(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        )
        .unwrap();
        assert_eq!(canary(d), reference);
        heads.iter_mut().for_each(|stream| _ = rest(stream));
        let heads_ended = begun.elapsed();
        assert!((5..20).contains(&heads_ended.as_secs()), "heads ended after {heads_ended:?}");
        let told = rest(&mut body);
        let body_ended = begun.elapsed();
        assert!((25..45).contains(&body_ended.as_secs()), "the body ended after {body_ended:?}");
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{told}");
        assert_eq!(canary(d), reference);
    });
}

#[test]
fn d04_heads_beyond_their_bounds() {
    row(|d| {
        let head = |more: &str| format!("GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
        let refused = |request: String| {
            let told = answer(d, request.as_bytes());
            assert!(told.starts_with("HTTP/1.1 431") || told.starts_with("HTTP/1.1 414"), "{told}");
        };
        assert!(answer(d, head(&format!("X-Long: {}\r\n", "x".repeat(16 << 10))).as_bytes()).starts_with("HTTP/1.1 200"));
        refused(head(&format!("X-Long: {}\r\n", "x".repeat(33 << 10))));
        let fields = |n: usize| (0..n).map(|i| format!("X-{i}: 1\r\n")).collect::<String>();
        assert!(answer(d, head(&fields(98)).as_bytes()).starts_with("HTTP/1.1 200"));
        refused(head(&fields(99)));
        refused(format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1 << 20)));
        assert_eq!(d.get("/api/version").status, 200);
    });
}

#[test]
fn d05_bodies_beyond_their_bound() {
    row(|d| {
        let head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        // Said beforehand, it is refused before it is read.
        let told = answer(d, format!("{head}Content-Length: {}\r\n\r\n", 17 << 20).as_bytes());
        assert!(told.starts_with("HTTP/1.1 413"), "{told}");
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        let told = answer(d, format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(17)).as_bytes());
        // The server may close while we still write, and its words may be lost with the connection.
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 413"), "{told}");
        assert_eq!(d.get("/api/version").status, 200);
    });
}

/// Who announces much and sends little keeps nobody out.
#[test]
fn d02_large_bodies_beside_slow_ones() {
    row(|d| {
        let head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let begin = |length: &str| {
            let mut stream = connect(d);
            stream.write_all(format!("{head}{length}\r\n\r\n").as_bytes()).unwrap();
            stream
        };
        let slow: Vec<TcpStream> =
            (0..20).map(|i| begin(if i % 2 == 0 { "Transfer-Encoding: chunked" } else { "Content-Length: 16000000" })).collect();
        let large = json!({ "model": "lantern-guide", "stream": false, "messages": [{ "role": "user", "content": "x".repeat(8 << 20) }] });
        assert_eq!(d.post("/api/chat", &large).status, 400, "it is read, and too long for the model");
        drop(slow);
    });
}

#[test]
fn d06_lengths_and_chunks_that_make_no_sense() {
    row(|d| {
        let head = "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        for more in [
            "Content-Length: -1\r\n\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  ",
            "Content-Length: two\r\n\r\n{}",
            "Content-Length: 18446744073709551616\r\n\r\n{}",
            "Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n{}",
            "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
            "Transfer-Encoding: gzip\r\n\r\n{}",
        ] {
            let told = answer(d, format!("{head}{more}").as_bytes());
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 400"), "{more:?}: {told}");
        }
        // A body whose end never comes because the client has gone is no request.
        drop({
            let mut stream = connect(d);
            stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n").as_bytes()).unwrap();
            stream
        });
        assert_eq!(d.get("/api/version").status, 200);
    });
}

#[test]
fn d07_d10_what_is_no_request() {
    row(|d| {
        let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0x0d, 0x0a, 0x0d, 0x0a];
        for bytes in [
            &tls[..],
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"GET /\r\n\r\n",
            b"\0\0\0\0\0\0\0\0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let told = answer(d, bytes);
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 400"), "{bytes:?}: {told}");
        }
        assert_eq!(d.get("/nothing").status, 404);
        assert_eq!(d.send("PATCH", "/api/chat", &[], "").status, 405);
        assert_eq!(d.send("BREW", "/api/tags", &[], "").status, 405);
        assert_eq!(d.get("/api/../v1/models").status, 404);
        let upgrade =
            [("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")];
        assert_eq!(d.send("GET", "/api/chat", &upgrade, "").status, 405);
        assert_eq!(d.send("GET", "/api/version", &upgrade, "").status, 200, "nothing is upgraded");
    });
}

/// HTTP/2 is off: whoever begins it, or resets a thousand streams of it, has lost the connection.
#[test]
fn d08_http_2_however_it_begins() {
    row(|d| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        // A HEADERS frame without END_HEADERS for each odd stream, and a RST_STREAM behind it.
        let frames = |n: u32| {
            (0..n).map(|i| 2 * i + 1).flat_map(|stream| {
                let [a, b, c, e] = stream.to_be_bytes();
                [&[0, 0, 1, 1, 0, a, b, c, e, 0x82][..], &[0, 0, 4, 3, 0, a, b, c, e, 0, 0, 0, 8]].concat()
            })
        };
        let flood: Vec<u8> = preface.iter().copied().chain(frames(1000)).collect();
        for _ in 0..50 {
            let told = answer(d, &flood);
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 400"), "{told}");
        }
        let upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAoAAA")];
        assert_eq!(d.send("GET", "/api/version", &upgrade, "").status, 200, "nothing is upgraded");
    });
}

/// Another machine has 64 connections, this one the rest. Addresses of the loopback net stand for other machines.
#[test]
fn d09_connections_from_one_address() {
    row(|d| {
        let server: SocketAddr = d.address.parse().unwrap();
        let open = |last: u8| -> TcpStream {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
            socket.connect(&server.into()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        };
        let served = |stream: &mut TcpStream| {
            let asked = stream.write_all(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n");
            asked.is_ok() && matches!(stream.read(&mut [0; 12]), Ok(12))
        };
        let mut streams: Vec<TcpStream> = (0..64).map(|_| open(2)).collect();
        assert!(streams.iter_mut().all(served), "as many as there may be");
        assert!(!served(&mut open(2)), "one more is closed");
        assert!(served(&mut open(3)), "another address is served");
        assert_eq!(d.get("/api/version").status, 200);
        drop(streams);
        eventually("room again", || served(&mut open(2)).then_some(()));
    });
}

/// A reader that takes nothing of its answer is let go after half a minute of it, and holds nothing in the meantime that others want.
#[test]
fn d03_a_reader_that_never_reads() {
    row(|d| {
        endless(d, "endless");
        let n_before = d.n_sockets();
        // More than the buffers of both sides hold.
        let body = json!({ "model": "endless", "prompt": "x", "raw": true, "logprobs": true, "top_logprobs": 20,
            "options": { "num_predict": 20_000, "num_ctx": 2048 } });
        let stream = d.open("POST", "/api/generate", &[], body.to_string().as_bytes());
        eventually("the answer begun", || (d.get("/api/ps").json()["models"].to_string().contains("endless")).then_some(()));
        let begun = Instant::now();
        while d.n_sockets() > n_before {
            assert!(begun.elapsed() < Duration::from_secs(100), "{} sockets, {n_before} before", d.n_sockets());
            std::thread::yield_now();
        }
        assert!(begun.elapsed() > Duration::from_secs(20), "it was given time: {:?}", begun.elapsed());
        drop(stream);
    });
}
