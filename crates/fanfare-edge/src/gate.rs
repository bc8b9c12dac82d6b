//! How many sockets may be open: in all, and from one address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::observed::{Limit, WouldReject};

/// Counts open sockets.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Changed by a reload, as the other bounds.
    connections_max: AtomicUsize,
    /// Who came while it was 0 is not counted by address.
    per_ip_max: AtomicUsize,
    /// Limits are only counted: who is beyond one is let in, and counted below.
    observes: AtomicBool,
    would_reject: Arc<WouldReject>,
    open: AtomicUsize,
    per_ip: DashMap<IpAddr, usize>,
}

/// What a gate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GateLimits {
    /// Sockets at once.
    pub(crate) connections_max: usize,
    /// The same from one address; 0: no bound.
    pub(crate) per_ip_max: usize,
    /// Whether who is beyond a bound is let in, and only counted.
    pub(crate) observes: bool,
}

/// Why a socket was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node is full.
    Full,
    /// This address has enough.
    Address,
}

/// A socket's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    /// Where its client is; nothing where that has no address, as over Unix sockets.
    address: Option<IpAddr>,
    /// Its place is counted by address too.
    is_counted: bool,
}

impl Permit {
    /// Where its client is, if that has an address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl Gate {
    pub(crate) fn new(limits: GateLimits, would_reject: Arc<WouldReject>) -> Arc<Self> {
        let gate = Self {
            connections_max: AtomicUsize::new(0),
            per_ip_max: AtomicUsize::new(0),
            observes: AtomicBool::new(false),
            would_reject,
            open: AtomicUsize::new(0),
            per_ip: DashMap::new(),
        };
        gate.set_limits(limits);
        Arc::new(gate)
    }

    /// Other bounds from here on. Who is in stays.
    pub(crate) fn set_limits(&self, limits: GateLimits) {
        self.connections_max.store(limits.connections_max, Ordering::Relaxed);
        self.per_ip_max.store(limits.per_ip_max, Ordering::Relaxed);
        self.observes.store(limits.observes, Ordering::Relaxed);
    }

    /// Whether what is beyond `limit` is let pass; counted then.
    fn lets_pass(&self, limit: Limit) -> bool {
        let observes = self.observes.load(Ordering::Relaxed);
        if observes {
            self.would_reject.count(limit);
        }
        observes
    }

    pub(crate) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, Refused> {
        let per_ip_max = self.per_ip_max.load(Ordering::Relaxed);
        let counted = address.filter(|_| per_ip_max > 0);
        let is_full = self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max.load(Ordering::Relaxed);
        if is_full && !self.lets_pass(Limit::Connections) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        if let Some(address) = counted {
            let mut count = self.per_ip.entry(address).or_insert(0);
            if *count >= per_ip_max && !self.lets_pass(Limit::ConnectionsPerIp) {
                drop(count);
                self.open.fetch_sub(1, Ordering::Relaxed);
                return Err(Refused::Address);
            }
            *count += 1;
        }
        Ok(Permit { gate: self.clone(), address, is_counted: counted.is_some() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address.as_ref().filter(|_| self.is_counted) else { return };
        self.gate.per_ip.remove_if_mut(address, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections_max: usize, per_ip_max: usize, observes: bool) -> Arc<Gate> {
        Gate::new(GateLimits { connections_max, per_ip_max, observes }, Arc::default())
    }

    #[test]
    fn places_are_bounded_in_all_and_per_address_and_come_back() {
        let gate = gate(3, 2, false);
        let one = Some(IpAddr::from([127, 0, 0, 1]));
        let two = Some(IpAddr::from([127, 0, 0, 2]));
        let a = gate.enter(one).expect("a place");
        let b = gate.enter(one).expect("a place");
        assert_eq!(gate.enter(one).err(), Some(Refused::Address));
        let c = gate.enter(two).expect("a place");
        assert_eq!(gate.enter(two).err(), Some(Refused::Full));
        assert_eq!(gate.enter(None).err(), Some(Refused::Full));
        drop((a, c));
        let d = gate.enter(one).expect("the place is free again");
        gate.set_limits(GateLimits { connections_max: 2, per_ip_max: 3, observes: false });
        assert_eq!(gate.enter(None).err(), Some(Refused::Full), "other bounds hold at once");
        gate.set_limits(GateLimits { connections_max: 3, per_ip_max: 1, observes: false });
        assert_eq!(gate.enter(one).err(), Some(Refused::Address));
        drop((b, d));
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(gate.per_ip.is_empty());
    }

    #[test]
    fn observed_limits_let_pass_and_count() {
        let gate = gate(3, 2, true);
        let one = Some(IpAddr::from([127, 0, 0, 1]));
        let permits: Vec<_> = (0..5).map(|_| gate.enter(one).expect("a place")).collect();
        assert_eq!(gate.would_reject.totals(0), [2, 3, 0, 0, 0]);
        drop(permits);
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(gate.per_ip.is_empty());
    }
}
