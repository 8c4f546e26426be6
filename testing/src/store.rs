//! A store that can be held and broken, and that several states can share.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tower_refresh::{
    BoxFuture, Generation, Tokens,
    store::{
        Deleted, Lease, Leased, MemoryStore, OpenRedeem, Record, SaveError, StoreError, TokenStore,
    },
};

use super::Gate;

/// What is done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Taking the lease.
    Lease,
    /// Reading the record.
    Load,
    /// Noting what is about to be spent.
    Intend,
    /// Writing the record, with the lease or without.
    Save,
    /// Signing out.
    Delete,
    /// Giving the lease back. Only its gate counts.
    Release,
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does nothing, and says that it failed.
    Fail,
    /// Does it, and says that it failed.
    FailAfter,
    /// Does it, and never comes back to say so.
    HangAfter,
    /// Panics.
    Panic,
    /// Only for [`Op::Lease`] and [`Op::Save`]: the lock is lost before it is used.
    Lost,
    /// Only for [`Op::Lease`]: it panics when it is asked.
    LostLoudly,
}

/// Clones are one store: what several processes see.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    memory: Mutex<Arc<MemoryStore>>,
    gates: [Gate; 6],
    faults: Mutex<[VecDeque<Fault>; 6]>,
}

impl Store {
    /// One that was never signed in.
    pub fn empty() -> Self {
        Self::around(MemoryStore::new())
    }

    /// One that holds these tokens.
    pub fn with(tokens: Tokens) -> Self {
        Self::around(MemoryStore::with_tokens(tokens))
    }

    fn around(memory: MemoryStore) -> Self {
        let gates = std::array::from_fn(|_| Gate::new());
        Self(Arc::new(Inner {
            memory: Mutex::new(Arc::new(memory)),
            gates,
            faults: Mutex::default(),
        }))
    }

    /// Every `op` passes here first.
    pub fn gate(&self, op: Op) -> &Gate {
        &self.0.gates[op as usize]
    }

    /// How often `op` was called.
    pub fn count(&self, op: Op) -> usize {
        self.gate(op).count()
    }

    /// The next `op` goes wrong; call it again for the one after.
    pub fn fault(&self, op: Op, fault: Fault) -> &Self {
        self.0.faults.lock().unwrap()[op as usize].push_back(fault);
        self
    }

    /// What it holds, past gates and faults.
    pub async fn record(&self) -> Record {
        self.memory().load().await.unwrap()
    }

    /// The refresh token that it holds.
    pub async fn refresh_token(&self) -> Option<String> {
        self.record().await.tokens?.refresh_token().map(str::to_owned)
    }

    /// Another process's write.
    pub async fn overwrite(&self, tokens: Option<Tokens>) {
        let held = self.record().await.generation;
        let record = Record::new(held.next(), tokens);
        self.memory().save(held, record).await.unwrap();
    }

    /// Goes back to an earlier time, as after a failover.
    pub async fn rewind(&self, tokens: Tokens) {
        *self.0.memory.lock().unwrap() = Arc::new(MemoryStore::with_tokens(tokens));
    }

    /// Loses all that it holds, its number included.
    pub async fn lose(&self) {
        *self.0.memory.lock().unwrap() = Arc::new(MemoryStore::new());
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.0.memory.lock().unwrap())
    }

    async fn begin(&self, op: Op) -> Result<Option<Fault>, StoreError> {
        self.gate(op).pass().await;
        let fault = self.0.faults.lock().unwrap()[op as usize].pop_front();
        match fault {
            Some(Fault::Fail) => Err(StoreError::new("disk full")),
            Some(Fault::Panic) => panic!("the store panics, as told"),
            fault => Ok(fault),
        }
    }

    async fn end(fault: Option<Fault>) -> Result<(), StoreError> {
        match fault {
            Some(Fault::FailAfter) => Err(StoreError::new("connection reset")),
            Some(Fault::HangAfter) => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

impl TokenStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async {
            self.begin(Op::Load).await?;
            self.memory().load().await
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let fault = self.begin(Op::Save).await?;
            self.memory().save(expected, record).await?;
            Ok(Self::end(fault).await?)
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            let fault = self.begin(Op::Delete).await?;
            let deleted = self.memory().delete().await?;
            Self::end(fault).await?;
            Ok(deleted)
        })
    }

    fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            let fault = self.begin(Op::Lease).await?;
            let Leased::Lease(lease) = self.memory().lease(seen).await? else {
                panic!("a lease of memory")
            };
            Ok(Leased::Lease(Box::new(Held { store: self.clone(), lease, fault })))
        })
    }
}

/// A lease whose saves come by the gate, too.
struct Held {
    store: Store,
    lease: Box<dyn Lease>,
    fault: Option<Fault>,
}

impl Lease for Held {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.lease.open_redeem()
    }

    fn is_held(&self) -> bool {
        match self.fault {
            Some(Fault::Lost) => false,
            Some(Fault::LostLoudly) => panic!("the lease panics, as told"),
            _ => true,
        }
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let fault = self.store.begin(Op::Intend).await?;
            self.lease.intend(generation).await?;
            Store::end(fault).await
        })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let fault = self.store.begin(Op::Save).await?;
            if let Some(Fault::Lost) = fault {
                return Err(SaveError::LeaseLost);
            }
            // Not the lease's own memory, if the store has been set back since.
            self.store.memory().save(expected, record).await?;
            Ok(Store::end(fault).await?)
        })
    }

    fn release(self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        if let Some(Fault::LostLoudly) = self.fault {
            panic!("the lease panics, as told");
        }
        Box::pin(async move {
            self.store.gate(Op::Release).pass().await;
            self.lease.release(left).await;
        })
    }
}
