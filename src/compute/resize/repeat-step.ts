// The steps of moves as a recovery does them: with the outcome told as if a message had asked for it.
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { TASK_STATES } from '#src/nova/states.ts';
import type { Evacuation } from '../images/evacuation.ts';
import { failMigration, recordInstanceFault, revertTaskState, wrapped } from '../rpc/wrappers.ts';
import { transition } from '../transition.ts';
import type { ComputeServices, MoveRecords, MoveStep } from '../types.ts';
import type { EndResize } from './end-resize.ts';
import { dropClaim, forgetFlavors, setStatus, takeBackAllocation } from './failing.ts';
import type { ResizeGuest } from './resize-guest.ts';

export interface MoveOperations {
  readonly resize: ResizeGuest;
  readonly end: EndResize;
  readonly evacuation: Evacuation;
}

type Repeat = (parts: {
  readonly services: ComputeServices;
  readonly operations: MoveOperations;
  readonly context: RequestContext;
  readonly move: MoveRecords;
  readonly signal: AbortSignal;
}) => Promise<void>;

/** The caller holds the instance's lock. */
export async function repeatStep(
  services: ComputeServices,
  operations: MoveOperations,
  { context, step, move }: { readonly context: RequestContext; readonly step: MoveStep; readonly move: MoveRecords },
  signal: AbortSignal,
): Promise<void> {
  const invocation = { method: `recovery: ${step}`, context, ...move };
  const wrappers = step === 'give up' ? [] : [revertTaskState, recordInstanceFault, failMigration];
  await wrapped(services, invocation, wrappers, () => REPEATS[step]({ services, operations, context, move, signal }));
}

const REPEATS: Readonly<Record<MoveStep, Repeat>> = {
  'give up': giveUp,
  'pass on': ({ operations, context, move }) => operations.resize.passOn(context, move),
  finish: ({ operations, context, move, signal }) => operations.resize.finish(context, move, signal, true),
  confirm: ({ operations, context, move, signal }) => operations.end.confirm(context, move, signal),
  revert: ({ operations, context, move, signal }) =>
    operations.end.revert(context, { ...move, requestSpec: null }, signal, true),
  'finish revert': ({ operations, context, move, signal }) => operations.end.finishRevert(context, move, signal),
  'finish evacuation': ({ operations, context, move }) => operations.evacuation.settle(context, move),
  'fail evacuation': ({ operations, context, move }) => operations.evacuation.fail(context, move),
};

/** Nothing has been done to the guest yet. Whoever has begun something with the instance meanwhile wins. */
async function giveUp({ services, context, move }: Parameters<Repeat>[0]): Promise<void> {
  const { conductor, log } = services;
  const { instance, migration } = move;
  const expectedTaskState = [TASK_STATES.resizePrep, null];
  try {
    await transition({ conductor, context }, instance, { task_state: null }, { expectedTaskState });
  } catch (error) {
    if (!isNova(error, 'UnexpectedTaskStateError')) throw error;
    log.info('move goes on', { instance: instance.get('uuid') });
    return;
  }
  await takeBackAllocation(services, move);
  await setStatus(services, context, migration, 'error');
  await dropClaim(services, context, instance);
  await forgetFlavors(services, context, instance);
}
