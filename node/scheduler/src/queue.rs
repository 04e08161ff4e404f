//! Requests that wait, taken fairly: the client served longest ago comes first, and each client's requests in order.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::Busy;
use crate::request::{Client, Event, Request};

/// A request and the way back to its caller.
pub(crate) struct Waiting {
    pub(crate) request: Request,
    pub(crate) events: mpsc::Sender<Event>,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    len_max: usize,
    /// Of one bounded client.
    len_max_of_client: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Turn at which each client was last served.
    served: HashMap<Client, u64>,
    turn: u64,
    closed: bool,
}

/// Clients remembered for fairness; beyond it the history starts anew.
const N_CLIENTS_MAX: usize = 4096;

impl Queue {
    pub(crate) fn new(len_max: usize, len_max_of_client: usize) -> Queue {
        Queue { state: Mutex::default(), arrived: Condvar::new(), len_max, len_max_of_client }
    }

    pub(crate) fn push(&self, request: Request, events: mpsc::Sender<Event>) -> Result<(), Busy> {
        let mut state = self.lock();
        // Callers that have gone away make room first.
        state.waiting.retain(|w| !w.events.is_closed());
        if state.waiting.len() >= self.len_max {
            return Err(Busy::Server);
        }
        let waiting = state.waiting.iter().filter(|w| w.request.client == request.client).count();
        if request.client.bounded && waiting >= self.len_max_of_client {
            return Err(Busy::Client { waiting });
        }
        state.waiting.push(Waiting { request, events });
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes the fairest request that `admissible` accepts. Requests whose callers are gone are dropped.
    pub(crate) fn take(&self, mut admissible: impl FnMut(&Request) -> bool) -> Option<Waiting> {
        let mut state = self.lock();
        state.waiting.retain(|w| !w.events.is_closed());
        let mut order: Vec<usize> = (0..state.waiting.len()).collect();
        order.sort_by_key(|i| state.served.get(&state.waiting[*i].request.client).copied().unwrap_or(0));
        let chosen = order.into_iter().find(|i| admissible(&state.waiting[*i].request))?;
        let waiting = state.waiting.remove(chosen);
        state.turn += 1;
        if state.served.len() >= N_CLIENTS_MAX {
            state.served.clear();
        }
        let turn = state.turn;
        state.served.insert(waiting.request.client.clone(), turn);
        Some(waiting)
    }

    /// Sleeps until a request waits, the queue closes, or the time is over.
    pub(crate) fn sleep_until_work(&self, limit: Option<Duration>) {
        let idle = |s: &mut State| s.waiting.is_empty() && !s.closed;
        let state = self.lock();
        match limit {
            Some(limit) => drop(self.arrived.wait_timeout_while(state, limit, idle)),
            None => drop(self.arrived.wait_while(state, idle)),
        }
    }

    /// Sleeps for a moment, or until the next request arrives.
    pub(crate) fn pause(&self, moment: Duration) {
        let state = self.lock();
        if !state.closed {
            drop(self.arrived.wait_timeout(state, moment));
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    pub(crate) fn closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelFile;
    use crate::request::{Input, Options};
    use std::time::Instant;

    fn request(client: &str, model: &str) -> Request {
        Request {
            model: ModelFile { name: model.into(), digest: model.into(), path: model.into() },
            client: Client { name: client.into(), bounded: client != "here" },
            input: Input::Load,
            options: Options::default(),
            keep_alive: None,
            accepted: Instant::now(),
        }
    }

    fn push(queue: &Queue, client: &str, model: &str) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(1);
        queue.push(request(client, model), sender).unwrap();
        receiver
    }

    fn order(queue: &Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take(|_| true)).map(|w| w.request.model.name).collect()
    }

    #[test]
    fn a_flood_does_not_starve_another_client() {
        let queue = Queue::new(10, 10);
        let _all: Vec<_> = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("a", "5")].map(|(c, m)| push(&queue, c, m)).into();
        assert_eq!(order(&queue), ["1", "4", "2", "3", "5"]);
    }

    #[test]
    fn one_more_than_the_limit_is_refused_and_leavers_make_room() {
        let queue = Queue::new(2, 2);
        let first = push(&queue, "a", "1");
        let _second = push(&queue, "a", "2");
        let (sender, _receiver) = mpsc::channel(1);
        assert_eq!(queue.push(request("a", "3"), sender.clone()).unwrap_err(), Busy::Server);
        drop(first);
        queue.push(request("a", "3"), sender).unwrap();
        assert_eq!(order(&queue), ["2", "3"]);
    }

    #[test]
    fn one_client_cannot_fill_the_queue() {
        let queue = Queue::new(10, 2);
        let _both = [push(&queue, "a", "1"), push(&queue, "a", "2")];
        let (sender, _receiver) = mpsc::channel(1);
        assert_eq!(queue.push(request("a", "3"), sender).unwrap_err(), Busy::Client { waiting: 2 });
        let _others = [push(&queue, "b", "4"), push(&queue, "here", "5"), push(&queue, "here", "6"), push(&queue, "here", "7")];
        assert_eq!(order(&queue).len(), 6);
    }

    #[test]
    fn what_cannot_run_yet_is_passed_over() {
        let queue = Queue::new(2, 2);
        let _both = [push(&queue, "a", "1"), push(&queue, "b", "2")];
        assert_eq!(queue.take(|r| r.model.name == "2").unwrap().request.model.name, "2");
        assert!(queue.take(|r| r.model.name == "2").is_none());
    }
}
