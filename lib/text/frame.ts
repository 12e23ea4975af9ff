export { frameText } from '../stacks/frames.js';
