//! [`RefreshState::look`]: what another process has written to the store counts at once.

use std::sync::Arc;

use super::{
    RefreshState,
    driver::{PANICKED, catch},
};
use crate::{credential::Credential, store::StoreError};

impl RefreshState {
    /// Looks at the store and takes over what another process has written there: its new tokens, and
    /// above all its sign-out, of which this process otherwise learns when the token is refused. For a
    /// server whose sessions end on every replica at once.
    ///
    /// It takes one round trip while nothing has changed
    /// ([`TokenStore::changed`](crate::store::TokenStore::changed)), and returns the
    /// [`current`](Self::current) credential. It starts no refresh. While a refresh is under way that
    /// has read the store, it changes nothing, since that refresh finds out itself.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// The store cannot be read. The credential stays as it was.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::sync::Arc;
    ///
    /// use tower_refresh::{Renewal, Tokens, store::MemoryStores};
    ///
    /// let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next"))).build();
    /// let stores = MemoryStores::new();
    /// let [here, elsewhere] = [(); 2].map(|()| renewal.state(Arc::new(stores.store("alice"))));
    /// here.set(Tokens::new("first")).await?;
    ///
    /// elsewhere.look().await?;
    /// elsewhere.clear().await?;
    /// assert_eq!(here.token().await?.access_token(), Some("first"));
    /// assert_eq!(here.look().await?.access_token(), None);
    /// # Ok::<_, tower_refresh::BoxError>(()) }).unwrap();
    /// ```
    pub async fn look(self: &Arc<Self>) -> Result<Credential, StoreError> {
        let known = self.lock().machine.stored();
        let found = catch(async { self.store.changed(known).await }).await;
        if let Some(record) = found.ok_or_else(|| StoreError::new(PANICKED))?? {
            self.with(|machine, at| machine.looked(known, &record, at));
        }
        Ok(self.current())
    }
}
