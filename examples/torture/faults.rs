//! What is done to the processes, one thing after the other, at random moments.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use rustix::process::Signal;
use testing::RedisServer;
use tokio::time::{sleep, timeout};
use tower_refresh::BoxError;

use crate::{
    Book, INTENT, LEASE,
    children::Child,
    options::{Kind, Options},
};

pub(crate) struct Faults {
    random: Rng,
    kinds: Vec<&'static str>,
    store: Kind,
    address: String,
    place: String,
    tasks: String,
    workers: Vec<Child>,
    processes: usize,
    started: u64,
    redis: Option<RedisServer>,
    losing: bool,
    /// What was done, and what the workers that are gone had seen.
    counts: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub(crate) fn new(
        options: &Options,
        address: &str,
        place: &str,
        redis: Option<RedisServer>,
    ) -> Self {
        Self {
            random: Rng::with_seed(options.seed),
            kinds: options.faults.clone(),
            store: options.store,
            address: address.to_owned(),
            place: place.to_owned(),
            tasks: options.tasks.to_string(),
            workers: Vec::new(),
            processes: options.processes,
            started: 0,
            redis,
            losing: false,
            counts: BTreeMap::new(),
        }
    }

    pub(crate) async fn start_workers(&mut self) -> Result<(), BoxError> {
        while self.workers.len() < self.processes {
            self.start_worker()?;
        }
        // Until all of them have come to work.
        while !self.all_work().await {}
        Ok(())
    }

    fn start_worker(&mut self) -> Result<(), BoxError> {
        self.started += 1;
        let id = self.started.to_string();
        let arguments = ["worker", &id, &self.address, &self.place, &self.tasks];
        let mut worker = Child::start(self.started, &arguments)?;
        worker.follow();
        self.workers.push(worker);
        Ok(())
    }

    /// A pause, and then one of the faults.
    pub(crate) async fn next(&mut self, book: &Book) -> Result<(), BoxError> {
        if self.kinds.contains(&"lost") != self.losing {
            self.losing = !self.losing;
            book.note("lose/20").await?;
        }
        sleep(self.between(400, 1000)).await;
        let Some(&kind) = self.random.choice(&self.kinds) else {
            return Ok(());
        };
        match kind {
            "kill" => {
                let chosen = self.choose(book).await?;
                self.count("processes killed");
                let mut worker = self.workers.swap_remove(chosen);
                book.note(&format!("killed/{}", worker.id)).await?;
                worker.killed().await?;
                self.add(&worker);
                self.start_worker()?;
            }
            "stop" => {
                let chosen = self.choose(book).await?;
                self.count("processes stopped for a while");
                let worker = &self.workers[chosen];
                book.note(&format!("stopped/{}", worker.id)).await?;
                worker.signal(Signal::STOP)?;
                let long = 3 * (LEASE + INTENT).as_millis() as u64;
                let time = Duration::from_millis(self.random.u64(100..long));
                sleep(time).await;
                let worker = &self.workers[chosen];
                worker.signal(Signal::CONT)?;
                book.note(&format!("continued/{}", worker.id)).await?;
            }
            "burst" => {
                self.count("bursts of 503");
                let time = self.between(50, 400).as_millis();
                book.note(&format!("busy/{time}")).await?;
            }
            "disk" => {
                self.perhaps_wait_for_a_redeem(book).await?;
                self.count("times without space");
                self.fill_disk(true).await?;
                sleep(self.between(50, 400)).await;
                self.fill_disk(false).await?;
            }
            "redis" => {
                self.perhaps_wait_for_a_redeem(book).await?;
                let pause = self.between(20, 250);
                if let Some(redis) = &mut self.redis {
                    redis.kill();
                    sleep(pause).await;
                    redis.start_again();
                    self.count("restarts of Redis");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Any process, or the one that has just redeemed.
    async fn choose(&mut self, book: &Book) -> Result<usize, BoxError> {
        let anyone = self.random.usize(..self.workers.len());
        if self.random.bool() {
            return Ok(anyone);
        }
        let caught = book.ambush().await?;
        let place = self.workers.iter().position(|worker| worker.id == caught);
        if place.is_some() {
            self.count("processes caught between redeem and save");
        }
        Ok(place.unwrap_or(anyone))
    }

    /// What comes now comes before the save.
    async fn perhaps_wait_for_a_redeem(&mut self, book: &Book) -> Result<(), BoxError> {
        if self.random.bool() && book.ambush().await? > 0 {
            self.count("stores broken between redeem and save");
        }
        Ok(())
    }

    async fn fill_disk(&mut self, full: bool) -> Result<(), BoxError> {
        match (self.store, &self.redis) {
            (Kind::File, _) => {
                // Either nothing can be written, or no more than an intent.
                let room = if self.random.bool() { 0 } else { 32 };
                for worker in &self.workers {
                    worker.limit_files(full.then_some(room))?;
                }
            }
            (Kind::Redis, Some(redis)) => {
                let (bytes, mut connection) = (u8::from(full), redis.connection());
                let mut limit = ::redis::cmd("CONFIG");
                limit.arg("SET").arg("maxmemory").arg(bytes).exec(&mut connection)?;
            }
            (Kind::Redis, None) => {}
        }
        Ok(())
    }

    /// No more faults.
    pub(crate) async fn mend(&mut self, book: &Book) -> Result<(), BoxError> {
        book.note("lose/0").await
    }

    /// Whether each process has had an answer of the API's within some time.
    pub(crate) async fn all_work(&self) -> bool {
        let accepted =
            || self.workers.iter().map(|worker| numbers(&worker.last_line()).0).collect::<Vec<_>>();
        let before = accepted();
        sleep(Duration::from_millis(500)).await;
        accepted().iter().zip(before).all(|(now, before)| *now > before)
    }

    /// Lets them go, and says what was done to them and what they saw.
    pub(crate) async fn stop_workers(&mut self) -> Result<BTreeMap<&'static str, u64>, BoxError> {
        for mut worker in std::mem::take(&mut self.workers) {
            if !timeout(Duration::from_secs(30), worker.leave()).await?? {
                return Err("a worker has failed".into());
            }
            self.add(&worker);
        }
        Ok(std::mem::take(&mut self.counts))
    }

    fn add(&mut self, worker: &Child) {
        let (ok, failed) = numbers(&worker.last_line());
        *self.counts.entry("requests that ended well, as their callers saw it").or_default() += ok;
        *self.counts.entry("requests that did not").or_default() += failed;
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(least..=most))
    }
}

fn numbers(line: &str) -> (u64, u64) {
    let parsed = line.split_once(' ').map(|(ok, failed)| (ok.parse(), failed.parse()));
    match parsed {
        Some((Ok(ok), Ok(failed))) => (ok, failed),
        _ => (0, 0),
    }
}
