// The engine's status codes as Nova's power states.
import { STATUS } from '#src/client/wire.ts';
import { POWER_STATE, type PowerState } from '../driver.ts';

/** A stopping container still runs; `error` means that the engine could not find out. */
const POWER_STATES: Readonly<Record<number, PowerState>> = {
  [STATUS.started]: POWER_STATE.running,
  [STATUS.running]: POWER_STATE.running,
  [STATUS.ready]: POWER_STATE.running,
  [STATUS.starting]: POWER_STATE.running,
  [STATUS.stopping]: POWER_STATE.running,
  [STATUS.thawed]: POWER_STATE.running,
  [STATUS.stopped]: POWER_STATE.shutdown,
  [STATUS.freezing]: POWER_STATE.paused,
  [STATUS.frozen]: POWER_STATE.paused,
  [STATUS.aborting]: POWER_STATE.crashed,
};

export function powerStateOf(statusCode: number): PowerState {
  return POWER_STATES[statusCode] ?? POWER_STATE.nostate;
}
