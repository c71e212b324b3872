// What is done at start about a move that the last process left half done, as a pure table (contract sections 5.5 and 5.7).
// Each step is safe to repeat, and does nothing to an instance that has got on by itself meanwhile.
import { MIGRATION_STATUSES as STATUS, TASK_STATES as TASK, VM_STATES as VM } from '#src/nova/states.ts';
import type { MoveStep } from '../types.ts';

export interface MoveView {
  readonly status: string | null;
  readonly isEvacuation: boolean;
  readonly source: string | null;
  readonly destination: string | null;
  /** This host. */
  readonly own: string;
  /** Where Nova has the instance. */
  readonly place: string | null;
  readonly taskState: string | null;
  readonly vmState: string | null;
}

const REBUILDING: ReadonlySet<string | null> = new Set([
  TASK.rebuilding,
  TASK.rebuildBlockDeviceMapping,
  TASK.rebuildSpawning,
]);

export function movePlan(view: MoveView): MoveStep | null {
  return view.isEvacuation ? evacuationStep(view) : (STEPS[view.status ?? '']?.(view) ?? null);
}

const STEPS: Readonly<Record<string, (view: MoveView) => MoveStep | null>> = {
  // whichever end was killed: a message that still comes finds that the task is gone
  [STATUS.preMigrating]: ({ source, place, taskState }) =>
    place === source && (taskState === TASK.resizePrep || taskState === null) ? 'give up' : null,
  // one with its task has been looked after with the instance
  [STATUS.migrating]: ({ source, own, place, taskState }) =>
    source === own && place === own && taskState === null ? 'give up' : null,
  [STATUS.postMigrating]: (view) => finishStep(view) ?? passOnStep(view),
  [STATUS.finished]: (view) => finishStep(view),
  [STATUS.confirming]: ({ source, own }) => (source === own ? 'confirm' : null),
  [STATUS.reverting]: (view) => revertStep(view),
  [STATUS.reverted]: (view) => revertStep(view) ?? finishRevertStep(view),
};

function finishStep({ destination, own, place, taskState }: MoveView): MoveStep | null {
  const isUnderWay = taskState === TASK.resizeMigrated || taskState === TASK.resizeFinish;
  return destination === own && place === own && isUnderWay ? 'finish' : null;
}

function passOnStep({ source, destination, own, place, taskState }: MoveView): MoveStep | null {
  return source === own && place === destination && taskState === TASK.resizeMigrated ? 'pass on' : null;
}

function revertStep({ destination, own, place, taskState }: MoveView): MoveStep | null {
  return destination === own && place === own && taskState === TASK.resizeReverting ? 'revert' : null;
}

function finishRevertStep({ source, own, taskState }: MoveView): MoveStep | null {
  return source === own && taskState === TASK.resizeReverting ? 'finish revert' : null;
}

function evacuationStep({ status, destination, own, place, taskState, vmState }: MoveView): MoveStep | null {
  if (status !== STATUS.preMigrating || destination !== own) return null;
  if (REBUILDING.has(taskState)) return place === own ? null : 'fail evacuation';
  return taskState === null && (vmState === VM.active || place === own) ? 'finish evacuation' : null;
}
