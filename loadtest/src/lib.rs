//! `fanfare-load`: a connection swarm with an exact delivery audit.
//!
//! A [`scenario::Plan`] says who connects where and who publishes when. [`conductor::carry_out`] takes it through its phases:
//! open, hold or storm, publish, settle, close. The [`swarm`] holds the connections, on at most two threads; what they say is
//! a matter of the [`dialect`], so that other servers are measured through the same path. Each receiver checks every arrival
//! with the pure [`audit`], and the [`report`] says what was owed and what came.
//!
//! Nothing is sampled: a gateway that loses, doubles, displaces or changes one message in any number of them is found.
//!
//! What it deliberately does not know: the gateway's insides. It sees what any client sees, and what the system says of a process.

pub mod audit;
pub mod cli;
pub mod conductor;
pub mod dialect;
pub mod frame;
pub mod pace;
pub mod process;
pub mod progress;
pub mod report;
pub mod scenario;
pub mod stamp;
pub mod swarm;
