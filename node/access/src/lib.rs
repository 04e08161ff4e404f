//! Who may: which web pages may call from a browser, and by which names the server may be addressed. Pure decisions; the
//! HTTP layer asks and answers.

mod host;
mod origin;
mod policy;
mod proxy;

pub use host::host_allowed;
pub use origin::{OriginError, OriginVerdict, Origins};
pub use policy::{Mode, Need, Place, Reach, Verdict, host_of};
pub use proxy::through_proxy;
