//! Attendant: an offline telephone attendant. This crate is the daemon and its command line.
//!
//! - [`serve`]: the daemon; its module header draws the start and lists every thread.
//! - [`call`]: one actor per call.
//! - [`api`]: for other programs; its module header draws the way of a request.
//! - [`caller`], [`bench`]: the other end of the line, to try and to measure.
//! - [`doctor`], [`demo`]: for the technician and the newcomer.

pub mod admin;
pub mod after_call;
pub mod api;
pub mod audit;
pub mod bench;
pub mod call;
pub mod caller;
pub mod care;
pub mod child;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod desk;
pub mod doctor;
pub mod fallback;
pub mod health;
pub mod lines;
pub mod logging;
pub mod memory;
pub mod menu;
pub mod metrics;
pub mod notify;
pub mod phrases;
pub mod recording;
pub mod replay;
pub mod serve;
pub mod session;
pub mod switchboard;
pub mod transfer;
