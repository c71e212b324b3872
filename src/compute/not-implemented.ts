// What this kind of host cannot do.
import { AppError } from '#src/lib/errors.ts';

/** Nova's own name for it: what an owner sees in the fault. */
export class NotImplementedError extends AppError {
  constructor(method: string) {
    super('unsupported', `${method} is not supported by this host`);
    this.name = 'NotImplementedError';
  }
}
