//! Routes, each with what it lets a caller do: none can be added without saying so.

use access::Need;
use axum::Router;
use axum::middleware::from_fn;
use axum::routing::MethodRouter;

use crate::{App, guard};

/// Routes being collected.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) router: Router<App>,
    /// Their paths, for pointing out a stray slash.
    pub(crate) paths: Vec<&'static str>,
}

impl Routes {
    /// Adds a path whose methods let a caller do `need`. They get bodies that are whole and within bounds.
    pub(crate) fn add(self, path: &'static str, need: Need, methods: MethodRouter<App>) -> Routes {
        self.add_stream(path, need, methods.layer(from_fn(guard::read_body)))
    }

    /// The same for methods that read bodies of any length as they come.
    pub(crate) fn add_stream(mut self, path: &'static str, need: Need, methods: MethodRouter<App>) -> Routes {
        self.router = self.router.route(path, methods.layer(from_fn(move |request, next| guard::check(need, request, next))));
        self.paths.push(path);
        self
    }

    /// Adds those of another dialect.
    pub(crate) fn merge(mut self, other: Routes) -> Routes {
        self.router = self.router.merge(other.router);
        self.paths.extend(other.paths);
        self
    }
}
