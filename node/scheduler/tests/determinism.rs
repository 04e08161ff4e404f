//! The same request gives the same text: whatever the number of threads, who else is served, what is reused and what is
//! guessed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::time::Instant;

use engine::QuantType;
use scheduler::{Client, Done, Event, Input, Limits, ModelFile, Options, Request, SamplerOptions, Scheduler, Threads};
use testkit::{Random, Shape, tiny_model};
use tokio::sync::mpsc::Receiver;

struct Case {
    file: tempfile::NamedTempFile,
    prompt: String,
    options: Options,
}

impl Case {
    fn new(family: &'static str, quant: QuantType, sampler: SamplerOptions) -> Case {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&tiny_model(&Shape::tiny(family), quant, 3).bytes()).unwrap();
        let options = Options { sampler, n_predict: Some(60), n_ctx: Some(128), ..Options::default() };
        Case { file, prompt: "one two three, one two three, one two".into(), options }
    }

    fn submit(&self, scheduler: &Scheduler, prompt: &str) -> Receiver<Event> {
        let model = ModelFile { name: "tiny".into(), digest: "1".into(), path: self.file.path().into() };
        let request = Request {
            model,
            client: Client { name: "test".into(), bounded: false },
            input: Input::Text { prompt: prompt.into(), context: Vec::new(), truncate: true },
            options: self.options.clone(),
            keep_alive: None,
            accepted: Instant::now(),
        };
        scheduler.submit(request).unwrap()
    }

    fn answer(&self, scheduler: &Scheduler) -> Done {
        done(self.submit(scheduler, &self.prompt))
    }
}

fn done(mut events: Receiver<Event>) -> Done {
    loop {
        match events.blocking_recv().unwrap() {
            Event::Done(done) => return *done,
            Event::Failed(failure) => panic!("{failure:?}"),
            Event::Began(_) | Event::Piece(_) | Event::Rendered(_) | Event::Embedded(_) => {}
        }
    }
}

fn start(n_threads: usize, drafting: bool) -> Scheduler {
    Scheduler::start(Limits { threads: Threads::same(n_threads), drafting, ..Limits::default() })
}

fn greedy() -> SamplerOptions {
    SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }
}

#[test]
fn drafting_changes_no_token() {
    let mut n_accepted = 0;
    for quant in [QuantType::Q4_0, QuantType::Q6_K, QuantType::F16] {
        for (seed, temperature) in [(0, 0.0), (1, 0.3), (2, 0.3), (3, 1.0)] {
            let sampler = SamplerOptions { temperature, seed, repeat_penalty: 1.1, ..SamplerOptions::default() };
            for sampler in [SamplerOptions { repeat_penalty: 1.0, ..sampler.clone() }, sampler] {
                let case = Case::new("qwen3", quant, sampler.clone());
                let (without, with) = (case.answer(&start(2, false)), case.answer(&start(2, true)));
                assert_eq!(with.context, without.context, "{quant} {sampler:?}");
                assert_eq!((with.reason, with.n_decoded), (without.reason, without.n_decoded));
                assert_eq!((without.n_drafted, without.n_accepted), (0, 0));
                n_accepted += with.n_accepted;
            }
        }
    }
    assert!(n_accepted > 100, "only {n_accepted} guesses were right: too few to show anything");
}

/// Without room at the end of the context a guess must not be made.
#[test]
fn drafting_ends_where_the_context_ends() {
    let mut case = Case::new("qwen3", QuantType::Q4_0, greedy());
    let mut n_accepted = 0;
    for (n_ctx, shift) in [(64, false), (64, true), (50, true)] {
        (case.options.n_ctx, case.options.shift, case.options.n_predict) = (Some(n_ctx), shift, shift.then_some(150));
        let (without, with) = (case.answer(&start(1, false)), case.answer(&start(1, true)));
        assert_eq!(with.context, without.context, "context {n_ctx}, shift {shift}");
        assert_eq!(with.n_decoded, without.n_decoded);
        n_accepted += with.n_accepted;
    }
    assert!(n_accepted > 10, "only {n_accepted} guesses were right: too few to show anything");
}

#[test]
fn a_hundred_runs_give_the_same_text() {
    let mut random = Random(9);
    for sampler in [greedy(), SamplerOptions { seed: 7, ..SamplerOptions::default() }] {
        let case = Case::new("llama", QuantType::Q4_K, sampler);
        let expected = case.answer(&start(1, false)).context;
        for n_threads in 1..=4 {
            for drafting in [false, true] {
                let scheduler = start(n_threads, drafting);
                for run in 0..7 {
                    // Others ask something of their own, or begin with the same words.
                    let others: Vec<Receiver<Event>> = (0..random.bits() % 4)
                        .map(|i| {
                            case.submit(&scheduler, ["four five six", "one two three, one", "one two two one two"][i as usize])
                        })
                        .collect();
                    let found = case.answer(&scheduler);
                    assert_eq!(
                        found.context,
                        expected,
                        "{n_threads} threads, drafting {drafting}, run {run}, {} others",
                        others.len()
                    );
                    others.into_iter().for_each(|other| _ = done(other));
                }
            }
        }
    }
}
