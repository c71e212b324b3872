// What is done at start about an instance that the last process left behind (contract section 4.6), as a pure table.
import { POWER_STATES, type PowerState, TASK_STATES as TASK, VM_STATES as VM } from '#src/nova/states.ts';

export type RecoveryStep =
  | 'complete deletion'
  | 'fail'
  | 'clear task'
  | 'make active'
  | 'terminate'
  | 'escalate to hard reboot'
  | 'reboot hard'
  | 'reboot soft'
  | 'unpause'
  | 'stop'
  | 'start'
  | 'undo rescue'
  | 'undo unshelving'
  | 'unrescue'
  | 'offload'
  | 'do again'
  | 'plug'
  | 'fail live migration'
  | 'abandon move'
  | 'resume guest';

export interface RecoveryView {
  readonly vmState: string | null;
  /** Before a resize or a cold migration began. */
  readonly oldVmState: string | null;
  readonly taskState: string | null;
  /** In Nova's record. */
  readonly recordedPower: number | null;
  /** In the engine. */
  readonly power: PowerState;
  readonly resumesGuests: boolean;
}

/** The first rule that says something ends the search; rules that only tidy up let it go on. */
interface Rule {
  readonly applies: (view: RecoveryView) => boolean;
  readonly steps: (view: RecoveryView) => readonly RecoveryStep[];
  readonly goesOn?: true;
}

const isIn = (value: string | null, ...set: readonly string[]): boolean => value !== null && set.includes(value);
const isRunning = ({ power }: RecoveryView): boolean => power === POWER_STATES.running;

const SOFT_REBOOT = [TASK.rebooting, TASK.rebootPending, TASK.rebootStarted] as const;
const REBOOT_BEGUN = [TASK.rebooting, TASK.rebootStarted, TASK.rebootingHard, TASK.rebootStartedHard] as const;
const HARD_REBOOT_FROM = [VM.active, VM.stopped, VM.paused, VM.suspended, VM.error] as const;

function isRebootToRepeat(view: RecoveryView): boolean {
  const { vmState, taskState } = view;
  if (taskState === TASK.rebootPending) return vmState === VM.active;
  if (taskState === TASK.rebootPendingHard) return isIn(vmState, ...HARD_REBOOT_FROM);
  return isIn(taskState, ...REBOOT_BEGUN) && !isRunning(view);
}

function rebootSteps(view: RecoveryView): readonly RecoveryStep[] {
  const wasSoft = isIn(view.taskState, ...SOFT_REBOOT);
  if (wasSoft && isRunning(view)) return ['reboot soft'];
  return wasSoft ? ['escalate to hard reboot', 'reboot hard'] : ['reboot hard'];
}

/** Until it is shelved, the guest is what there is of the instance: it goes on as before. */
function isHalfShelved({ vmState, taskState }: RecoveryView): boolean {
  const { shelving, shelvingImagePendingUpload, shelvingImageUploading } = TASK;
  return vmState !== VM.error && isIn(taskState, shelving, shelvingImagePendingUpload, shelvingImageUploading);
}

/** Its image is what there is of the instance until the guest has been published. */
function isHalfUnshelved({ vmState, taskState }: RecoveryView): boolean {
  return vmState === VM.shelvedOffloaded && isIn(taskState, TASK.unshelving, TASK.spawning);
}

/** What was asked for is done once more: each of these is the same done twice. */
function isToDoAgain({ vmState, taskState, power }: RecoveryView): boolean {
  if (vmState === VM.error) return false;
  if (isIn(taskState, TASK.suspending, TASK.resuming, TASK.softDeleting, TASK.restoring)) return true;
  return taskState === TASK.pausing && power === POWER_STATES.paused;
}

function unshelveSteps({ recordedPower }: RecoveryView): readonly RecoveryStep[] {
  return recordedPower === POWER_STATES.running ? ['plug', 'resume guest', 'clear task'] : ['plug', 'clear task'];
}

const RULES: readonly Rule[] = [
  // Of these a stock compute knows nothing: it leaves them in their task for ever.
  { applies: ({ taskState }) => taskState === TASK.rescuing, steps: () => ['undo rescue'] },
  { applies: ({ taskState }) => taskState === TASK.unrescuing, steps: () => ['unrescue'] },
  { applies: isHalfUnshelved, steps: () => ['undo unshelving'] },
  { applies: isHalfShelved, steps: unshelveSteps },
  { applies: isToDoAgain, steps: () => ['do again'] },
  { applies: ({ taskState }) => taskState === TASK.updatingPassword, steps: () => ['clear task'], goesOn: true },
  {
    applies: ({ vmState, taskState }) => vmState === VM.shelved && taskState === TASK.shelvingOffloading,
    steps: () => ['clear task', 'offload'],
  },
  {
    applies: ({ vmState, taskState }) =>
      vmState === VM.softDelete || (vmState === VM.error && !isIn(taskState, TASK.resizeMigrating, TASK.deleting)),
    steps: () => [],
  },
  { applies: ({ vmState }) => vmState === VM.deleted, steps: () => ['complete deletion'] },
  {
    applies: ({ vmState, taskState }) =>
      vmState === VM.building ||
      isIn(taskState, TASK.scheduling, TASK.blockDeviceMapping, TASK.networking, TASK.spawning),
    steps: () => ['fail'],
  },
  {
    applies: ({ vmState, taskState }) =>
      isIn(vmState, VM.active, VM.stopped) &&
      isIn(taskState, TASK.rebuilding, TASK.rebuildBlockDeviceMapping, TASK.rebuildSpawning),
    steps: () => ['fail'],
  },
  {
    applies: ({ taskState }) =>
      isIn(
        taskState,
        TASK.imageSnapshotPending,
        TASK.imagePendingUpload,
        TASK.imageUploading,
        TASK.imageSnapshot,
        TASK.imageBackup,
        TASK.resizePrep,
      ),
    steps: () => ['clear task'],
    goesOn: true,
  },
  { applies: ({ taskState }) => taskState === TASK.deleting, steps: () => ['terminate'] },
  { applies: isRebootToRepeat, steps: rebootSteps },
  {
    applies: (view) => isRunning(view) && isIn(view.taskState, ...REBOOT_BEGUN, TASK.pausing, TASK.unpausing),
    steps: () => ['make active'],
    goesOn: true,
  },
  {
    applies: ({ taskState, power }) => taskState === TASK.unpausing && power === POWER_STATES.paused,
    steps: () => ['unpause'],
  },
  { applies: ({ taskState }) => taskState === TASK.poweringOff, steps: () => ['stop'] },
  { applies: ({ taskState }) => taskState === TASK.poweringOn, steps: () => ['start'] },
];

export function recoveryPlan(view: RecoveryView): readonly RecoveryStep[] {
  const steps: RecoveryStep[] = [];
  for (const rule of RULES) {
    if (!rule.applies(view)) continue;
    steps.push(...rule.steps(view));
    if (!rule.goesOn) return steps;
  }
  return [...steps, 'plug', ...lastSteps(view)];
}

/** Of what goes on living here. */
function lastSteps(view: RecoveryView): readonly RecoveryStep[] {
  const { vmState, oldVmState, taskState, recordedPower, power, resumesGuests } = view;
  if (taskState === TASK.resizeMigrating) {
    const isOff = (oldVmState ?? vmState) === VM.stopped;
    return isOff ? ['abandon move', 'clear task'] : ['abandon move', 'resume guest', 'clear task'];
  }
  // the move goes on, and starts the guest when it is time
  if (isIn(taskState, TASK.resizeMigrated, TASK.resizeFinish, TASK.resizeReverting)) return [];
  const migration: readonly RecoveryStep[] = taskState === TASK.migrating ? ['fail live migration', 'clear task'] : [];
  const isDown = recordedPower === POWER_STATES.running && power !== POWER_STATES.running;
  return isDown && resumesGuests ? [...migration, 'resume guest'] : migration;
}
