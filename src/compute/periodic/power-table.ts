// What a difference between Nova's power state and the engine's calls for (contract section 4.10).
import { POWER_STATES, type PowerState, VM_STATES } from '#src/nova/states.ts';

export type PowerAction = 'none' | 'stop' | 'delete' | 'log';

export interface PowerView {
  readonly vmState: string | null;
  readonly power: PowerState;
  /** Instance.shutdown_terminate: who stops it deletes it. */
  readonly deletesOnShutdown: boolean;
}

const DOWN: ReadonlySet<PowerState> = new Set([POWER_STATES.shutdown, POWER_STATES.crashed]);
const DOWN_OR_GONE: ReadonlySet<PowerState> = new Set([...DOWN, POWER_STATES.nostate]);

/** The power_state column is corrected in any case; this is what is done beyond. */
export function powerAction({ vmState, power, deletesOnShutdown }: PowerView): PowerAction {
  switch (vmState) {
    case VM_STATES.active:
      return activeAction(power, deletesOnShutdown);
    case VM_STATES.stopped:
      return DOWN_OR_GONE.has(power) ? 'none' : 'stop';
    case VM_STATES.paused:
      return DOWN.has(power) ? 'stop' : 'none';
    default:
      return 'none';
  }
}

function activeAction(power: PowerState, deletesOnShutdown: boolean): PowerAction {
  if (DOWN.has(power)) return deletesOnShutdown ? 'delete' : 'stop';
  if (power === POWER_STATES.suspended) return 'stop';
  return power === POWER_STATES.paused || power === POWER_STATES.nostate ? 'log' : 'none';
}
