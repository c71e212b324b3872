// Instance types as limits: "c2-m4" is two CPUs and 4 GiB (lxd-engine-contract section 2.7).
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';

export function instanceTypeLimits(type: string): ConfigMap {
  if (type === '') return {};
  const parts = type.split('-').map((part) => /^([cm])(\d+(?:\.\d+)?)$/.exec(part));
  if (parts.some((part) => part === null)) throw new AppError('invalid', `The provided instance type doesn't exist`);
  return Object.assign({}, ...parts.map((part) => limitsOf(part?.[1] ?? '', Number(part?.[2])))) as ConfigMap;
}

function limitsOf(letter: string, amount: number): ConfigMap {
  if (letter === 'm') return { 'limits.memory': `${Math.floor(amount * 1024)}MB` };
  if (amount >= 1) return { 'limits.cpu': String(Math.ceil(amount)) };
  return { 'limits.cpu': '1', 'limits.cpu.allowance': `${Math.floor(amount * 100)}%` };
}
