//! Exchange tokens: whether two files call themselves the same installation.
//!
//! Every answer hands out a token that the next push presents. One step back is allowed, for an
//! answer that was lost; anything older was copied or restored. A token that this server made, but
//! does not remember making, shows that the server itself was restored: a new history begins.

use super::batch::{Caller, Result};
use super::parse::Incomings;
use crate::mint::{Holder, Presented};
use crate::{Exchange, WriteTx};
use syncline_protocol::{Epoch, ExchangeToken};

pub(super) enum Exchanged {
    /// The presented token is not one of the last two.
    Forked,
    /// What to present next.
    Token(ExchangeToken),
}

pub(super) fn exchange(
    tx: &mut dyn WriteTx,
    caller: &Caller<'_>,
    push: &Incomings,
    epoch: &mut Epoch,
) -> Result<Exchanged> {
    let (tenant, client) = (caller.tenant(), &push.client);
    let mut known = tx.exchange(tenant, client)?;
    let presented = caller
        .mint
        .read_exchange_token(holder(caller, push, epoch), push.token.as_ref());
    let presented = match presented {
        Presented::Foreign => return Ok(Exchanged::Forked),
        Presented::Nothing => 0,
        Presented::Number(number) if number > known.current => {
            tracing::error!(
                "a client has seen later answers than this database remembers: a new history begins"
            );
            *epoch = caller.mint.next_epoch(epoch, caller.now_ms);
            tx.set_epoch(epoch)?;
            known = Exchange::default();
            0
        }
        Presented::Number(number) => number,
    };
    if presented != known.current && presented != known.previous {
        return Ok(Exchanged::Forked);
    }
    let next = Exchange {
        previous: presented,
        current: known.current + 1,
    };
    tx.put_exchange(tenant, client, next)?;
    let token = caller
        .mint
        .exchange_token(holder(caller, push, epoch), next.current);
    Ok(Exchanged::Token(token))
}

fn holder<'a>(caller: &'a Caller<'_>, push: &'a Incomings, epoch: &'a Epoch) -> Holder<'a> {
    Holder {
        epoch,
        tenant: caller.tenant(),
        client: &push.client,
    }
}
