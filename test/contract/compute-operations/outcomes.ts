// What each operation comes to while a service is away; services that are not named here change nothing.
import type { ServiceName } from './outage.ts';

type Outcomes = Readonly<Record<string, Partial<Record<ServiceName, string>>>>;

export const OUTCOMES: Outcomes = {};
