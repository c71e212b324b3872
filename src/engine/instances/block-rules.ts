// What cannot be done to an instance whose root is a device of the host: whoever gave the device does it to the device.
import { AppError } from '#src/lib/errors.ts';
import type { InstanceRecord } from '../db/records.ts';
import { rootDisks } from './disks.ts';

/** `what`: "copied", "exported" … */
export function refuseOnBlock(record: Pick<InstanceRecord, 'name' | 'devices'>, what: string): void {
  // No profile may have it.
  const block = rootDisks(record.devices)[0]?.block;
  if (block === undefined) return;
  const text = `The root of instance "${record.name}" is a device of the host (${block}): it cannot be ${what} here`;
  throw new AppError('invalid', text);
}
